package container

import (
	"fmt"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/protobuf/proto"
)

// subjects are the topics by which containerd tells that a container changed, and how to read which. Processes that
// are executed in a container (health checks, every few seconds) have topics of their own, but end by /tasks/exit.
var subjects = map[string]func([]byte) (id string, err error){
	"/containers/create": subject(&events.ContainerCreate{}, (*events.ContainerCreate).GetID),
	"/containers/update": subject(&events.ContainerUpdate{}, (*events.ContainerUpdate).GetID),
	"/containers/delete": subject(&events.ContainerDelete{}, (*events.ContainerDelete).GetID),
	"/tasks/create":      subject(&events.TaskCreate{}, (*events.TaskCreate).GetContainerID),
	"/tasks/start":       subject(&events.TaskStart{}, (*events.TaskStart).GetContainerID),
	"/tasks/oom":         subject(&events.TaskOOM{}, (*events.TaskOOM).GetContainerID),
	"/tasks/paused":      subject(&events.TaskPaused{}, (*events.TaskPaused).GetContainerID),
	"/tasks/resumed":     subject(&events.TaskResumed{}, (*events.TaskResumed).GetContainerID),
	"/tasks/delete":      subject(&events.TaskDelete{}, (*events.TaskDelete).GetContainerID),
	"/tasks/exit": subject(&events.TaskExit{}, func(e *events.TaskExit) string {
		if e.GetID() != e.GetContainerID() {
			return "" // an executed process
		}
		return e.GetContainerID()
	}),
}

func subject[T proto.Message](kind T, id func(T) string) func([]byte) (string, error) {
	return func(value []byte) (string, error) {
		e := kind.ProtoReflect().New().Interface().(T)
		if err := proto.Unmarshal(value, e); err != nil {
			return "", err
		}
		return id(e), nil
	}
}

// eventFilters is the subscription to exactly those topics.
func eventFilters() []string {
	var out []string
	for topic := range subjects {
		out = append(out, fmt.Sprintf("topic==%q", topic))
	}
	return out
}

// eventSubject gives the id of the container that changed, or "" when none did.
func eventSubject(e *types.Envelope) (string, error) {
	read, ok := subjects[e.Topic]
	if !ok || e.Event == nil {
		return "", nil
	}
	id, err := read(e.Event.Value)
	if err != nil {
		return "", fmt.Errorf("read event %s: %w", e.Topic, err)
	}
	return id, nil
}
