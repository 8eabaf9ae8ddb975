package main

import (
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
	"text/tabwriter"
	"time"
)

// contender is one way to do a piece of work; run does it once. before, which
// may be nil, prepares a run and is not measured.
type contender struct {
	name   string
	run    func() error
	before func() error
}

// sample is what one contender needed, in the unit of its result.
type sample struct {
	name   string
	median float64
	min    float64
}

// result is one line of the table: the first sample is Berth's.
type result struct {
	work    string
	unit    string
	samples []sample
	bars    []bar
}

// bar is a promise: Berth's median is at most (or, for rates, at least) factor
// times the named contender's; with an empty name factor is absolute.
type bar struct {
	against string
	factor  float64
	atLeast bool
}

// interleave runs every contender once a round and returns the times in
// milliseconds. One unmeasured round warms caches for all alike.
func (b *bench) interleave(cs []contender) ([]sample, error) {
	times := make([][]float64, len(cs))
	for round := -1; round < b.rounds; round++ {
		for i, c := range cs {
			if err := b.ctx.Err(); err != nil {
				return nil, err
			}
			if c.before != nil {
				if err := c.before(); err != nil {
					return nil, fmt.Errorf("%s: %w", c.name, err)
				}
			}
			start := time.Now()
			if err := c.run(); err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if round >= 0 {
				times[i] = append(times[i], float64(time.Since(start).Microseconds())/1000)
			}
		}
	}
	samples := make([]sample, len(cs))
	for i, c := range cs {
		samples[i] = summarize(c.name, times[i])
	}
	return samples, nil
}

func summarize(name string, values []float64) sample {
	sorted := append([]float64(nil), values...)
	sort.Float64s(sorted)
	if len(sorted) == 0 {
		return sample{name: name}
	}
	return sample{name: name, median: sorted[len(sorted)/2], min: sorted[0]}
}

func (b *bench) add(work, unit string, samples []sample, bars ...bar) {
	b.results = append(b.results, result{work, unit, samples, bars})
}

func (r result) find(name string) (sample, bool) {
	for _, s := range r.samples {
		if s.name == name {
			return s, true
		}
	}
	return sample{}, false
}

// verdicts says for every bar what was measured and whether it holds.
func (r result) verdicts() string {
	var out []string
	for _, bar := range r.bars {
		ours := r.samples[0].median
		what, value := "", ours
		if bar.against != "" {
			other, ok := r.find(bar.against)
			if !ok || other.median == 0 {
				out = append(out, bar.against+": not measured")
				continue
			}
			value = ours / other.median
			what = " x " + bar.against
		}
		sign, holds := "<=", value <= bar.factor
		if bar.atLeast {
			sign, holds = ">=", value >= bar.factor
		}
		word := "ok"
		if !holds {
			word = "MISSED"
		}
		out = append(out, fmt.Sprintf("%.3g%s (%s %.3g) %s", value, what, sign, bar.factor, word))
	}
	return strings.Join(out, "; ")
}

// report prints the table and appends it as Markdown to the file out, if named.
func (b *bench) report(out string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "WORK\tUNIT\tMEDIAN (MIN)\tBAR")
	var md strings.Builder
	md.WriteString("\n" + b.conditions() + "\n\n| work | unit | median (min) | bar |\n| --- | --- | --- | --- |\n")
	for _, r := range b.results {
		var cells []string
		for _, s := range r.samples {
			cells = append(cells, fmt.Sprintf("%s %.4g (%.4g)", s.name, s.median, s.min))
		}
		line := []string{r.work, r.unit, strings.Join(cells, ", "), r.verdicts()}
		fmt.Fprintln(w, strings.Join(line, "\t"))
		md.WriteString("| " + strings.Join(line, " | ") + " |\n")
	}
	if err := w.Flush(); err != nil || out == "" {
		return err
	}
	f, err := os.OpenFile(out, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(md.String()); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// conditions names the machine and the versions that were measured.
func (b *bench) conditions() string {
	first := func(argv ...string) string {
		text, err := exec.Command(argv[0], argv[1:]...).Output()
		if err != nil {
			return argv[0] + " absent"
		}
		return strings.SplitN(strings.TrimSpace(string(text)), "\n", 2)[0]
	}
	return fmt.Sprintf("Measured %s, %d rounds, Linux %s, %s; %s; %s; %s.",
		time.Now().UTC().Format("2006-01-02"), b.rounds, first("uname", "-r"),
		first("runc", "--version"), first("dockerd", "--version"), first("podman", "--version"),
		first("crun", "--version"))
}
