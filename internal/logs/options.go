package logs

import (
	"strconv"

	"berth/internal/fault"

	"github.com/docker/go-units"
)

// DefaultBuffer is how many bytes of output that was not logged yet a container
// with non-blocking delivery may have.
const DefaultBuffer = 1 << 20

// Options are the settings that the drivers which write files have in common.
type Options struct {
	MaxSize  int64  // bytes; -1 is unlimited, 0 the default
	MaxFiles int    // 0 is the default
	Compress bool   // rotated files are compressed
	Labels   string // names of labels that become attributes, comma-separated
	Env      string // the same of environment variables
	Tag      string // template of an attribute "tag"
	// LabelsRegex and EnvRegex select further ones by pattern.
	LabelsRegex, EnvRegex string
	// Buffer is how many bytes may wait to be logged before lines are dropped;
	// 0 means that the container waits instead.
	Buffer int64

	nonBlocking, bufferSet bool
}

// Set sets one option by its name; driver is named when there is no such option.
// After the last one, Check has to be called.
func (o *Options) Set(driver, name, value string) (err error) {
	switch name {
	case "max-size":
		o.MaxSize, err = Size(name, value)
	case "max-file":
		o.MaxFiles, err = Count(name, value)
	case "compress":
		o.Compress, err = Bool(name, value)
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
	// How drivers that can't be read are to be cached: docker takes it with every
	// driver, and the values are right or wrong whatever the driver.
	case "cache-disabled", "cache-compress":
		_, err = Bool(name, value)
	case "cache-max-size":
		_, err = Size(name, value)
	case "cache-max-file":
		_, err = Count(name, value)
	case "max-buffer-size":
		o.bufferSet = true
		o.Buffer, err = units.RAMInBytes(value)
		if err != nil || o.Buffer <= 0 {
			return fault.New(fault.Invalid, "use log option", name, "%q is not a size", value).WithHint("write a number and a unit, as in 4m")
		}
	default:
		return fault.New(fault.Invalid, "use log option", name, "unknown log opt '%s' for %s log driver", name, driver)
	}
	return err
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

// Size reads the size of a file; -1 is unlimited.
func Size(name, value string) (int64, error) {
	if value == "-1" {
		return -1, nil
	}
	size, err := units.FromHumanSize(value)
	if err != nil || size <= 0 {
		return 0, fault.New(fault.Invalid, "use log option", name, "%q is not a size", value).WithHint("write a number and a unit, as in 10m, or -1 for no limit")
	}
	return size, nil
}

// Count reads a number of files.
func Count(name, value string) (int, error) {
	count, err := strconv.Atoi(value)
	if err != nil || count < 1 || count > 10000 {
		return 0, fault.New(fault.Invalid, "use log option", name, "%q is not a number of files from 1 to 10000", value)
	}
	return count, nil
}

// Bool reads a switch.
func Bool(name, value string) (bool, error) {
	on, err := strconv.ParseBool(value)
	if err != nil {
		return false, fault.New(fault.Invalid, "use log option", name, "%q is neither true nor false", value)
	}
	return on, nil
}
