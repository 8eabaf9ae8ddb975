// Package none is the log driver that keeps nothing. It is a package for the
// sake of its name and of the rule that every driver is one.
package none

// Name is what users call the driver.
const Name = "none"

// Parse accepts any option, as docker does: there is nothing that one could
// change.
func Parse(map[string]string) error { return nil }
