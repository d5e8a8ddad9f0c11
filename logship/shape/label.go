package shape

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"maps"
)

// LabelPrefix begins the labels by which a container shapes its own lines: fairlead.logs.multiline and its sisters, one
// for each key of a Rule that they may set. keep, drop and redact take one regular expression, sinks names divided by
// commas.
const LabelPrefix = "fairlead.logs."

// labelOf gives the label of a rule's key.
func labelOf(key string) string {
	key, _, _ = strings.Cut(key, "[") // drop[0].match is the label drop
	return LabelPrefix + key
}

// setters is what each label does.
var setters = map[string]func(r *Rule, v string) error{
	"multiline":   func(r *Rule, v string) error { r.Multiline = v; return nil },
	"parse":       func(r *Rule, v string) error { r.Parse = v; return nil },
	"message":     func(r *Rule, v string) error { r.Message = v; return nil },
	"time":        func(r *Rule, v string) error { r.Time = v; return nil },
	"time_format": func(r *Rule, v string) error { r.Format = v; return nil },
	"keep":        func(r *Rule, v string) error { r.Keep = []Filter{{Match: v}}; return nil },
	"drop":        func(r *Rule, v string) error { r.Drop = []Filter{{Match: v}}; return nil },
	"redact":      func(r *Rule, v string) error { r.Redact = []Redact{{Match: v}}; return nil },
	"rate":        func(r *Rule, v string) error { r.Rate = v; return nil },
	"sample": func(r *Rule, v string) (err error) {
		if r.Sample, err = strconv.Atoi(v); err != nil {
			return expected("label "+labelOf("sample"), v, "a number of records of which one is delivered")
		}
		return nil
	},
	"sinks": func(r *Rule, v string) error {
		for name := range strings.SplitSeq(v, ",") {
			if name = strings.TrimSpace(name); name != "" {
				r.Sinks = append(r.Sinks, name)
			}
		}
		return nil
	},
}

type said struct {
	any bool
	err error
}

// fromLabels makes a rule of a container's labels.
func fromLabels(labels map[string]string) (r Rule, s said) {
	var errs []error
	for label, v := range labels {
		key, ours := strings.CutPrefix(label, LabelPrefix)
		if !ours {
			continue
		}
		set, known := setters[key]
		if !known {
			errs = append(errs, expected("label "+label, v, "one of "+LabelPrefix+strings.Join(slices.Sorted(maps.Keys(setters)), ", ")))
			continue
		}
		if v = strings.TrimSpace(v); v == "" {
			continue
		}
		s.any = true
		errs = append(errs, set(&r, v))
	}
	s.err = errors.Join(errs...)
	return r, s
}
