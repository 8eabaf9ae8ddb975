// Package logs is the output of containers at rest: the json-file format,
// rotation, and reading it again by tail, time and following. It exists apart
// from the monitor, which writes the files, because the engine reads them, and
// both have to agree on every byte and on what a rotation looks like.
package logs

import (
	"errors"
	"strconv"
	"time"

	"berth/internal/fault"

	"github.com/docker/go-units"
)

// The defaults bound what a container's log may occupy on disk.
const (
	DefaultMaxSize  = 10 << 20 // bytes of one file
	DefaultMaxFiles = 3        // files, the current one included
)

// PartialSize is how much of a line one entry holds at most, in bytes. Longer
// lines are several entries, all but the last without a newline.
const PartialSize = 16 << 10

// Entry is one line of a container's output, or a part of a long one.
type Entry struct {
	Time   time.Time
	Stream string // "stdout" or "stderr"
	// Line is the text with its newline, unless Partial. It is valid only
	// during the call it is passed to.
	Line    []byte
	Partial bool // the line goes on in the next entry, or its newline never came
	Attrs   map[string]string
}

// ErrNotReadable is the answer to reading the log of a container whose driver
// keeps nothing.
var ErrNotReadable error = &fault.Error{
	Kind: fault.Unsupported,
	Err:  errors.New("configured logging driver does not support reading"),
}

// Options are the settings of the json-file driver.
type Options struct {
	MaxSize  int64 // bytes; -1 is unlimited
	MaxFiles int
	Labels   string // names of labels that become attributes, comma-separated
	Env      string // the same of environment variables
	Tag      string // template of an attribute "tag"
	// LabelsRegex and EnvRegex select further ones by pattern.
	LabelsRegex, EnvRegex string
}

// ParseOptions reads the options of the json-file driver as users write them.
// The error names the option.
func ParseOptions(options map[string]string) (Options, error) {
	o := Options{MaxSize: DefaultMaxSize, MaxFiles: DefaultMaxFiles}
	for name, value := range options {
		if err := o.set(name, value); err != nil {
			return Options{}, err
		}
	}
	return o, nil
}

func (o *Options) set(name, value string) error {
	switch name {
	case "max-size":
		if value == "-1" {
			o.MaxSize = -1
			return nil
		}
		size, err := units.FromHumanSize(value)
		if err != nil || size <= 0 {
			return fault.New(fault.Invalid, "use log option", name, "%q is not a size", value).WithHint("write a number and a unit, as in 10m, or -1 for no limit")
		}
		o.MaxSize = size
	case "max-file":
		count, err := strconv.Atoi(value)
		if err != nil || count < 1 || count > 10000 {
			return fault.New(fault.Invalid, "use log option", name, "%q is not a number of files from 1 to 10000", value)
		}
		o.MaxFiles = count
	case "compress":
		compress, err := strconv.ParseBool(value)
		if err != nil {
			return fault.New(fault.Invalid, "use log option", name, "%q is neither true nor false", value)
		}
		if compress {
			return fault.New(fault.Unsupported, "use log option", name, "rotated log files are kept as they are")
		}
	case "labels":
		o.Labels = value
	case "labels-regex":
		o.LabelsRegex = value
	case "env":
		o.Env = value
	case "env-regex":
		o.EnvRegex = value
	case "tag":
		o.Tag = value
	case "mode":
		if value != "" && value != "blocking" {
			return fault.New(fault.Unsupported, "use log option", name, "the mode %q would drop lines", value)
		}
	default:
		return fault.New(fault.Invalid, "use log option", name, "unknown log opt '%s' for json-file log driver", name)
	}
	return nil
}
