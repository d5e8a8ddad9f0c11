package main

import "runtime/debug"

// version is that of the file receiver's module, which go.mod names.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range info.Deps {
		if m.Path == "github.com/open-telemetry/opentelemetry-collector-contrib/receiver/filelogreceiver" {
			return m.Version
		}
	}
	return "unknown"
}
