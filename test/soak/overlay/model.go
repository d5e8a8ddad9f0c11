package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
)

var played = regexp.MustCompile(`(\d+) histories from seed (\d+)`)

// histories plays the model test of overlay/store, one process for each processor. It prints the seeds.
func histories(ctx context.Context, binary string, n int, out *result) error {
	var mu sync.Mutex
	var running sync.WaitGroup
	cpus := runtime.NumCPU()
	for i := range cpus {
		share := n / cpus
		if i == 0 {
			share += n % cpus
		}
		running.Go(func() {
			c := exec.CommandContext(ctx, binary, "-test.run=^TestModelOfLeases", "-test.v", "-test.timeout=20m", "-model.histories="+strconv.Itoa(share))
			text, err := c.CombinedOutput()
			mu.Lock()
			defer mu.Unlock()
			m := played.FindSubmatch(text)
			if err != nil || m == nil {
				out.bad("model: %v\n%s", err, text)
				if strings.Contains(string(text), "two owners") || strings.Contains(string(text), "two hold") || strings.Contains(string(text), "is held by") {
					out.DoubleOwners++
				}
				return
			}
			fmt.Printf("model: %s\n", m[0])
			count, _ := strconv.Atoi(string(m[1])) // digits
			out.Model += count
		})
	}
	running.Wait()
	return ctx.Err()
}
