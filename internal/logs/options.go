package logs

import (
	"cmp"
	"strconv"
	"strings"

	"berth/internal/fault"

	"github.com/docker/go-units"
)

// DefaultBuffer is how many bytes of output that was not logged yet a container
// with non-blocking delivery may have.
const DefaultBuffer = 1 << 20

// Files are the bounds of a log's files.
type Files struct {
	MaxSize  int64 // bytes; -1 is unlimited, 0 the default
	MaxFiles int   // 0 is the default
	Compress bool  // rotated files are compressed
}

// set sets one bound by the last part of an option's name.
func (f *Files) set(option, bound, value string) (known bool, err error) {
	switch bound {
	case "max-size":
		f.MaxSize, err = size(option, value)
	case "max-file":
		f.MaxFiles, err = count(option, value)
	case "compress":
		f.Compress, err = Bool(option, value)
	default:
		return false, nil
	}
	return true, err
}

// Default fills in what was not given. A file that is never rotated is the only one.
func (f *Files) Default(maxSize int64, maxFiles int) {
	if f.MaxFiles == 0 && f.MaxSize < 0 {
		f.MaxFiles = 1
	}
	f.MaxSize, f.MaxFiles = cmp.Or(f.MaxSize, maxSize), cmp.Or(f.MaxFiles, maxFiles)
}

// Options are the settings that all drivers have in common.
type Options struct {
	Files
	Labels string // names of labels that become attributes, comma-separated
	Env    string // the same of environment variables
	Tag    string // template of an attribute "tag"
	// LabelsRegex and EnvRegex select further ones by pattern.
	LabelsRegex, EnvRegex string
	// Buffer is how many bytes may wait to be logged before lines are dropped;
	// 0 means that the container waits instead.
	Buffer int64
	// Cache are the files of drivers that send lines away, from which they are read
	// back. docker takes the options with every driver, and their values are right or
	// wrong whatever the driver.
	Cache         Files
	CacheDisabled bool // nobody may read the files

	nonBlocking, bufferSet bool
}

// Set sets one option by its name; driver is named when there is no such option.
// After the last one, Check has to be called.
func (o *Options) Set(driver, name, value string) (err error) {
	switch name {
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
		if value != "" && value != "blocking" && value != "non-blocking" {
			return fault.New(fault.Invalid, "use log option", name, "logging mode not supported: %s", value).WithHint("write blocking or non-blocking")
		}
		o.nonBlocking = value == "non-blocking"
	case "max-buffer-size":
		o.bufferSet = true
		o.Buffer, err = units.RAMInBytes(value)
		if err != nil || o.Buffer <= 0 {
			return fault.New(fault.Invalid, "use log option", name, "%q is not a size", value).WithHint("write a number and a unit, as in 4m")
		}
	case "cache-disabled":
		o.CacheDisabled, err = Bool(name, value)
	default:
		files, bound := &o.Files, name
		if rest, cached := strings.CutPrefix(name, "cache-"); cached {
			files, bound = &o.Cache, rest
		}
		known := false
		if known, err = files.set(name, bound, value); !known {
			return Unknown(driver, name)
		}
	}
	return err
}

// Unknown is the error of an option that a driver does not have.
func Unknown(driver, name string) error {
	return fault.New(fault.Invalid, "use log option", name, "unknown log opt '%s' for %s log driver", name, driver)
}

// Check looks at what the options say together.
func (o *Options) Check() error {
	if o.bufferSet && !o.nonBlocking {
		return fault.New(fault.Invalid, "use log option", "max-buffer-size", "max-buffer-size option is only supported with 'mode=non-blocking'")
	}
	if o.nonBlocking && !o.bufferSet {
		o.Buffer = DefaultBuffer
	}
	return nil
}

// size reads the size of a file; -1 is unlimited.
func size(name, value string) (int64, error) {
	if value == "-1" {
		return -1, nil
	}
	n, err := units.FromHumanSize(value)
	if err != nil || n <= 0 {
		return 0, fault.New(fault.Invalid, "use log option", name, "%q is not a size", value).WithHint("write a number and a unit, as in 10m, or -1 for no limit")
	}
	return n, nil
}

// count reads a number of files.
func count(name, value string) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > 10000 {
		return 0, fault.New(fault.Invalid, "use log option", name, "%q is not a number of files from 1 to 10000", value)
	}
	return n, nil
}

// Bool reads a switch.
func Bool(name, value string) (bool, error) {
	on, err := strconv.ParseBool(value)
	if err != nil {
		return false, fault.New(fault.Invalid, "use log option", name, "%q is neither true nor false", value)
	}
	return on, nil
}
