package sink

import "slices"

// Field is one fact about a record's origin, as sinks with fields name it.
type Field struct{ Name, Value string }

// Fields gives what is known of the origin, in a fixed order, without its labels.
func (o *Origin) Fields() []Field {
	addr := ""
	if o.Addr.IsValid() {
		addr = o.Addr.String()
	}
	all := []Field{{"host", o.Host}, {"runtime", o.Runtime}, {"id", o.ID}, {"name", o.Name}, {"image", o.Image},
		{"addr", addr}, {"namespace", o.Namespace}, {"pod", o.Pod}, {"path", o.Path}}
	return slices.DeleteFunc(all, func(f Field) bool { return f.Value == "" })
}

// Tags gives the container's labels, sorted by name.
func (o *Origin) Tags() []Field {
	out := make([]Field, 0, len(o.Labels))
	for k, v := range o.Labels {
		out = append(out, Field{k, v})
	}
	slices.SortFunc(out, func(a, b Field) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

// Cache keeps what a driver renders once for each origin. It is bounded; origins are compared by pointer.
type Cache[T any] struct{ of map[*Origin]T }

// Get gives the cached value, made by render when there is none.
func (c *Cache[T]) Get(o *Origin, render func(*Origin) T) T {
	v, ok := c.of[o]
	if !ok {
		if c.of == nil || len(c.of) >= 8192 {
			c.of = map[*Origin]T{}
		}
		v = render(o)
		c.of[o] = v
	}
	return v
}
