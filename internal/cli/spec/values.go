package spec

import (
	"fmt"
	"strconv"
	"strings"

	units "github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// sizeValue is a flag of bytes with an optional unit.
type sizeValue int64

func (s *sizeValue) String() string {
	if *s == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*s), 10)
}

// Type names the argument in help texts.
func (s *sizeValue) Type() string { return "SIZE" }

// Set parses 512m, 1.5g, 100.
func (s *sizeValue) Set(text string) error {
	n, err := parseSize(text)
	*s = sizeValue(n)
	return err
}

func parseSize(text string) (int64, error) {
	n, err := units.RAMInBytes(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a size such as 512m or 2g", text)
	}
	return n, nil
}

// swapValue is a size that may be -1 for no limit.
type swapValue int64

func (s *swapValue) String() string {
	size := sizeValue(*s)
	return size.String()
}

// Type names the argument in help texts.
func (s *swapValue) Type() string { return "SIZE" }

// Set parses a size or -1.
func (s *swapValue) Set(text string) error {
	if text == "-1" {
		*s = -1
		return nil
	}
	n, err := parseSize(text)
	*s = swapValue(n)
	return err
}

// cpusValue is a number of processors in billionths.
type cpusValue int64

func (c *cpusValue) String() string {
	if *c == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(*c)/1e9, 'f', -1, 64)
}

// Type names the argument in help texts.
func (c *cpusValue) Type() string { return "NUMBER" }

// Set parses a decimal number without rounding.
func (c *cpusValue) Set(text string) error {
	bad := fmt.Errorf("%q is not a number of processors such as 1.5", text)
	whole, part, _ := strings.Cut(text, ".")
	if whole == "" && part == "" || len(whole) > 9 {
		return bad
	}
	for _, digit := range whole + part {
		if digit < '0' || digit > '9' {
			return bad
		}
	}
	for len(part) > 9 && part[len(part)-1] == '0' {
		part = part[:len(part)-1]
	}
	if len(part) > 9 {
		return fmt.Errorf("%q has more than nine decimal places", text)
	}
	n, err := strconv.ParseInt(whole+part+strings.Repeat("0", 9-len(part)), 10, 64)
	if err != nil {
		return bad
	}
	*c = cpusValue(n)
	return nil
}

// list is a flag that may be repeated. pflag's own keeps a kilobyte-sized writer
// for each such flag just to print its default.
type list struct{ values *[]string }

func (l list) String() string { return strings.Join(*l.values, ",") }

// Type names the argument in help texts.
func (l list) Type() string { return "stringArray" }

// Set adds a value.
func (l list) Set(text string) error {
	*l.values = append(*l.values, text)
	return nil
}

// List adds a flag that may be repeated to a set. shorthand may be "".
func List(fs *pflag.FlagSet, values *[]string, name, shorthand, usage string) {
	fs.VarP(list{values}, name, shorthand, usage)
}
