package container

import (
	"context"
	"errors"
	"time"
)

// answerWithin is how long a runtime may take for one answer. One that takes longer is unanswered, never empty.
const answerWithin = 2 * time.Second

// Source is one runtime on this host. Implementations are safe for concurrent use and keep no view of their own: the
// Inventory does that. Every method honours ctx. The Inventory bounds Ping and Get by two seconds; a List may need
// many questions, each of which the Source bounds by two seconds itself.
type Source interface {
	// Name is the runtime's name as `fairlead status` shows it. Two sources never share a name.
	Name() Runtime
	// Socket is the path by which the runtime was found.
	Socket() string
	// Ping asks something cheap. An error means "unanswered".
	Ping(ctx context.Context) error
	// List gives every container the runtime knows, running or not. PID-derived fields are left to the Inventory.
	// An error means "unanswered".
	List(ctx context.Context) ([]Container, error)
	// Get gives the container with this handle, or ErrGone when the runtime answered that it has no such container.
	Get(ctx context.Context, h Handle) (Container, error)
	// Watch calls changed for each container that was created, started, paused, stopped or removed, until ctx ends
	// or the stream breaks; the error says why it broke. It calls changed("") when it cannot say which, and once when
	// the subscription stands, so that a List after that call misses nothing. changed does not block.
	Watch(ctx context.Context, changed func(Handle)) error
}

// Handle is how a Source and the Inventory speak of one container: its id, behind "NAMESPACE/" for containerd, where
// two namespaces may use the same id.
type Handle string

func (c *Container) handle() Handle { return handleOf(c.Namespace, string(c.ID)) }

func handleOf(namespace, id string) Handle {
	if namespace == "" {
		return Handle(id)
	}
	return Handle(namespace + "/" + id)
}

// ErrGone is the runtime's answer that it has no such container. It is never used for a runtime that did not answer.
var ErrGone = errors.New("no such container")
