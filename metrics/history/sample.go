package history

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/metrics/cgroup"
)

// Sample is what one container showed at one moment.
type Sample struct {
	Who
	Life    string // one life of one container: another start has another
	At      time.Time
	Started time.Time
	Read    bool // false: it is there, but could not be read this time
	Ended   bool // the last one: read when the container's first process ended; missed, if Read is false
	Total   Amounts
	Level   Level
}

// Who is a container as people know it.
type Who struct {
	Runtime   container.Runtime `json:"runtime"`
	ID        container.ID      `json:"id"`
	Name      string            `json:"name"`
	Namespace string            `json:"namespace,omitempty"` // of its pod, as the two below
	Pod       string            `json:"pod,omitempty"`
	Container string            `json:"container,omitempty"`
	Image     string            `json:"image,omitempty"`
}

// Subject is what advice is for: a container of the same name is the same one, however often it is made anew.
func (w Who) Subject() string {
	if w.Pod != "" {
		return strings.Join([]string{string(w.Runtime), w.Namespace, w.Pod, w.Container}, "/")
	}
	return string(w.Runtime) + "/" + w.Name
}

// Amount is one thing that is counted from a container's start to its end.
type Amount int

// What is counted. CPU is nanoseconds.
const (
	CPU Amount = iota
	BytesRead
	BytesWritten
	BytesReceived
	BytesSent
	Periods
	ThrottledPeriods
	OOMKills
	amounts
)

var amountNames = [amounts]string{"cpu_ns", "read_bytes", "written_bytes", "received_bytes", "sent_bytes", "periods", "throttled_periods", "oom_kills"}

// Amounts is one value of each kind; what is unknown stays so.
type Amounts [amounts]cgroup.Value

// MarshalJSON writes what is known.
func (a Amounts) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, v := range a {
		if !v.Known {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = strconv.AppendQuote(b, amountNames[i])
		b = append(b, ':')
		b = strconv.AppendUint(b, v.N, 10)
	}
	return append(b, '}'), nil
}

// UnmarshalJSON reads what MarshalJSON wrote; a name that this build does not know is an error.
func (a *Amounts) UnmarshalJSON(b []byte) error {
	var named map[string]uint64
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&named); err != nil {
		return err
	}
	*a = Amounts{}
	for name, n := range named {
		i := slices.Index(amountNames[:], name)
		if i < 0 {
			return fmt.Errorf("unknown amount %q", name)
		}
		a[i] = cgroup.Known(n)
	}
	return nil
}

// Level is what goes up and down, and what bounds it. Limits are unknown where there is none.
type Level struct {
	Memory        cgroup.Value // working set
	Peak          cgroup.Value // the highest memory usage of its life
	MemoryLimit   cgroup.Value
	MemoryRequest cgroup.Value
	CPULimit      float64 // cores, 0 is none
	CPURequest    float64 // cores, 0 is none
}
