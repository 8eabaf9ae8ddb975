package jsonfile

import (
	"berth/internal/fault"
	"berth/internal/logs"
)

// Name is what users call the driver.
const Name = "json-file"

// Format is the driver's format.
type Format struct{}

// NewEncoder is of logs.Format.
func (Format) NewEncoder() logs.Encoder { return new(Encoder) }

// NewDecoder is of logs.Format.
func (Format) NewDecoder() logs.Decoder { return new(Decoder) }

// Parse reads the options of the driver as users write them. Sizes that are not
// given are 0. The error names the option.
func Parse(options map[string]string) (logs.Options, error) {
	var o logs.Options
	for name, value := range options {
		if err := o.Set(Name, name, value); err != nil {
			return logs.Options{}, err
		}
	}
	if err := o.Check(); err != nil {
		return logs.Options{}, err
	}
	if o.Compress && (o.MaxFiles == 1 || o.MaxSize < 0) {
		return logs.Options{}, fault.New(fault.Invalid, "", "", "compress cannot be true when max-file is less than 2 or max-size is not set")
	}
	return o, nil
}
