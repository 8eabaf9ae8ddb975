package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/client"
)

const logsExample = `  berth logs -f --tail 20 web
  berth logs --since 10m -t web`

func buildLogs(a *app, cmd *cobra.Command) {
	var o client.LogsOptions
	var since, until string
	fs := cmd.Flags()
	fs.BoolVarP(&o.Follow, "follow", "f", false, "go on as more is written")
	fs.BoolVarP(&o.Timestamps, "timestamps", "t", false, "put the time before each line")
	fs.BoolVar(&o.Details, "details", false, "show the attributes that the log driver was given")
	fs.StringVarP(&o.Tail, "tail", "n", "all", "`N` show the last lines alone")
	fs.StringVar(&since, "since", "", "`TIME` show what was written since: 10m, 2024-05-01T12:00:00")
	fs.StringVar(&until, "until", "", "`TIME` show what was written before")
	cmd.Args = exactly(1, "one container")
	cmd.ValidArgsFunction = a.completeContainers()
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		now := time.Now()
		if o.Since, err = parseTime("since", since, now); err != nil {
			return err
		}
		if o.Until, err = parseTime("until", until, now); err != nil {
			return err
		}
		if n, err := strconv.Atoi(o.Tail); o.Tail != "all" && (err != nil || n < -1) {
			return wrong("--tail %q is neither a number nor all", o.Tail)
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		err = c.ContainerLogs(cmd.Context(), args[0], o, a.out, a.err)
		return a.missingContainer(cmd, c, args[0], err)
	}
}

// timeForms are what --since and --until take beside durations and Unix times;
// those without a zone mean the local one.
var timeForms = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04",
	"2006-01-02T15", "2006-01-02Z07:00", "2006-01-02", "2006-01-02 15:04:05"}

// parseTime turns 10m, a date or a Unix time into a Unix time with nanoseconds.
func parseTime(flag, text string, now time.Time) (string, error) {
	if text == "" {
		return "", nil
	}
	if d, err := time.ParseDuration(text); err == nil && text != "0" { // that is 1970, as with docker
		return unixTime(now.Add(-d)), nil
	}
	if isUnixTime(text) {
		return text, nil
	}
	for _, form := range timeForms {
		if t, err := time.ParseInLocation(form, text, time.Local); err == nil {
			return unixTime(t), nil
		}
	}
	return "", wrong("--%s %q is not a time", flag, text).WithHint("write 10m, 2h30m, 2024-05-01T12:00:00Z or seconds since 1970")
}

func isUnixTime(text string) bool {
	seconds, fraction, _ := strings.Cut(text, ".")
	if _, err := strconv.ParseInt(seconds, 10, 64); err != nil {
		return false
	}
	_, err := strconv.ParseUint(fraction, 10, 64)
	return err == nil || fraction == "" && !strings.Contains(text, ".")
}

func unixTime(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
