// Command orphans plays the reaper against a random model host, and against a real containerd whose shims, containers and
// agent are killed, and prints what it swept wrongly and what it missed. `make soak-orphans` runs it; SHORT=1 is the
// bounded run of CI. It needs root for the real rounds, works in namespaces of its own and leaves nothing.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/fairlead-dev/fairlead/agent/reap/reaptest"
)

// result is the last line that is printed.
type result struct {
	Soak           string `json:"soak"`
	RoundsModel    int    `json:"rounds_model"`
	RoundsReal     int    `json:"rounds_real"`
	WrongDeletions int    `json:"wrong_deletions"`
	Missed         int    `json:"missed"`
	Seed           uint64 `json:"seed"`
}

func main() {
	short := flag.Bool("short", os.Getenv("SHORT") == "1", "a run of under a minute")
	seed := flag.Uint64("seed", rand.Uint64(), "of chance")
	flag.Parse()
	ended, err := apart(fmt.Sprintf("-short=%v", *short), fmt.Sprintf("-seed=%d", *seed))
	if !ended {
		err = soak(*short, *seed)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func soak(short bool, seed uint64) error {
	model, real := 500_000, 60
	if short {
		model, real = 20_000, 5
	}
	fmt.Printf("seed %d\n", seed)
	out := result{Soak: "orphans", Seed: seed}
	var bad []string
	for done := 0; done < model; done += 10_000 {
		m := reaptest.Run(seed+uint64(done), 10_000, nil)
		out.RoundsModel += m.Rounds
		out.WrongDeletions += len(m.Wrong)
		out.Missed += len(m.Missed)
		bad = append(append(bad, m.Wrong...), m.Missed...)
	}
	fmt.Printf("model: %d rounds\n", out.RoundsModel)
	if err := realRounds(real, newRand(seed), &out, &bad); err != nil {
		return err
	}
	for _, line := range bad {
		fmt.Println(line)
	}
	text, err := json.Marshal(out)
	if err != nil {
		return err
	}
	fmt.Println(string(text))
	if len(bad) > 0 {
		return fmt.Errorf("%d wrong deletions, %d missed", out.WrongDeletions, out.Missed)
	}
	return nil
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func realRounds(n int, rng *rand.Rand, out *result, bad *[]string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(n)*time.Minute)
	defer cancel()
	w, err := newWorld(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if e := w.close(); err == nil {
			err = e
		}
	}()
	for range n {
		wrong, missed, err := w.round(ctx, rng)
		if err != nil {
			return fmt.Errorf("real round %d: %w", out.RoundsReal, err)
		}
		out.RoundsReal++
		out.WrongDeletions += len(wrong)
		out.Missed += len(missed)
		*bad = append(append(*bad, wrong...), missed...)
		fmt.Printf("real round %d: %d wrong, %d missed\n", out.RoundsReal, len(wrong), len(missed))
	}
	return nil
}
