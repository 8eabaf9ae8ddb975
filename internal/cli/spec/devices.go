package spec

import (
	"encoding/csv"
	"errors"
	"fmt"
	"strconv"
	"strings"

	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"

	"berth/internal/client"
)

// devices reads --device and --gpus.
func (f *Flags) devices(r *client.Resources) error {
	var cdi []string
	for _, text := range f.Device {
		if isCDI(text) {
			cdi = append(cdi, text)
			continue
		}
		mapping, err := parseDevice(text)
		if err != nil {
			return fmt.Errorf("--device %q: %w", text, err)
		}
		r.Devices = append(r.Devices, mapping)
	}
	if cdi != nil {
		r.DeviceRequests = append(r.DeviceRequests, client.DeviceRequest{Driver: "cdi", DeviceIDs: cdi})
	}
	if f.GPUs != "" {
		request, err := parseGPUs(f.GPUs)
		if err != nil {
			return fmt.Errorf("--gpus %q: %w", f.GPUs, err)
		}
		r.DeviceRequests = append(r.DeviceRequests, request)
	}
	for _, rule := range f.DeviceCgroupRule {
		if !isDeviceRule(rule) {
			return fmt.Errorf("--device-cgroup-rule %q: write TYPE MAJOR:MINOR ACCESS, as in \"c 1:3 rwm\"", rule)
		}
	}
	r.DeviceCgroupRules = f.DeviceCgroupRule
	return nil
}

// isCDI reports whether text is a device name of the Container Device
// Interface: VENDOR/CLASS=NAME.
func isCDI(text string) bool {
	kind, name, ok := strings.Cut(text, "=")
	vendor, class, slash := strings.Cut(kind, "/")
	return ok && slash && vendor != "" && class != "" && name != "" && !strings.ContainsAny(kind, ":")
}

func parseDevice(text string) (client.DeviceMapping, error) {
	d := client.DeviceMapping{CgroupPermissions: "rwm"}
	parts := strings.Split(text, ":")
	if parts[0] == "" || len(parts) > 3 {
		return d, errors.New("it is not DEVICE[:PATH[:rwm]]")
	}
	d.PathOnHost, d.PathInContainer = parts[0], parts[0]
	switch {
	case len(parts) == 3:
		d.PathInContainer, d.CgroupPermissions = parts[1], parts[2]
	case len(parts) == 2 && isAccess(parts[1]):
		d.CgroupPermissions = parts[1]
	case len(parts) == 2:
		d.PathInContainer = parts[1]
	}
	if !isAccess(d.CgroupPermissions) {
		return d, fmt.Errorf("%q is not an access such as r or rwm", d.CgroupPermissions)
	}
	if !strings.HasPrefix(d.PathInContainer, "/") {
		return d, fmt.Errorf("%q is not an absolute path in the container", d.PathInContainer)
	}
	return d, nil
}

// isAccess reports whether text consists of different letters of r, w and m.
func isAccess(text string) bool {
	seen := map[rune]bool{}
	for _, c := range text {
		if !strings.ContainsRune("rwm", c) || seen[c] {
			return false
		}
		seen[c] = true
	}
	return text != ""
}

func isDeviceRule(rule string) bool {
	fields := strings.Split(rule, " ")
	if len(fields) != 3 || !strings.Contains("abc", fields[0]) || len(fields[0]) != 1 || !isAccess(fields[2]) {
		return false
	}
	major, minor, ok := strings.Cut(fields[1], ":")
	return ok && isDeviceNumber(major) && isDeviceNumber(minor)
}

func isDeviceNumber(text string) bool {
	_, err := strconv.ParseUint(text, 10, 32)
	return text == "*" || err == nil
}

func parseGPUs(text string) (client.DeviceRequest, error) {
	r := client.DeviceRequest{Capabilities: [][]string{{"gpu"}}}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return r, errors.New("not comma-separated NAME=VALUE")
	}
	for _, field := range fields {
		name, value, hasValue := strings.Cut(field, "=")
		if !hasValue {
			name, value = "count", field
		}
		switch name {
		case "count":
			if value == "all" {
				r.Count = -1
			} else if r.Count, err = strconv.Atoi(value); err != nil {
				return r, fmt.Errorf("%q is neither all nor a number", value)
			}
		case "device":
			r.DeviceIDs = strings.Split(value, ",")
		case "driver":
			r.Driver = value
		case "capabilities":
			r.Capabilities = [][]string{append(strings.Split(value, ","), "gpu")}
		case "options":
			setPair(&r.Options, value)
		default:
			return r, fmt.Errorf("unknown field %q", name)
		}
	}
	if r.Count == 0 && r.DeviceIDs == nil {
		r.Count = 1
	}
	return r, nil
}

// blockIO reads the flags that limit block devices.
func (f *Flags) blockIO(r *client.Resources) error {
	if f.BlkioWeight != 0 && (f.BlkioWeight < 10 || f.BlkioWeight > 1000) {
		return fmt.Errorf("--blkio-weight %d is not between 10 and 1000", f.BlkioWeight)
	}
	r.BlkioWeight = f.BlkioWeight
	for _, text := range f.BlkioWeightDevice {
		path, value, err := cutDevice("blkio-weight-device", text)
		if err != nil {
			return err
		}
		weight, err := strconv.ParseUint(value, 10, 16)
		if err != nil || weight != 0 && (weight < 10 || weight > 1000) {
			return fmt.Errorf("--blkio-weight-device %q: the weight is not between 10 and 1000", text)
		}
		r.BlkioWeightDevice = append(r.BlkioWeightDevice, &blkiodev.WeightDevice{Path: path, Weight: uint16(weight)})
	}
	for _, limit := range []struct {
		flag  string
		args  []string
		bytes bool
		out   *[]*blkiodev.ThrottleDevice
	}{
		{"device-read-bps", f.DeviceReadBps, true, &r.BlkioDeviceReadBps},
		{"device-write-bps", f.DeviceWriteBps, true, &r.BlkioDeviceWriteBps},
		{"device-read-iops", f.DeviceReadIOps, false, &r.BlkioDeviceReadIOps},
		{"device-write-iops", f.DeviceWriteIOps, false, &r.BlkioDeviceWriteIOps},
	} {
		for _, text := range limit.args {
			device, err := parseThrottle(limit.flag, text, limit.bytes)
			if err != nil {
				return err
			}
			*limit.out = append(*limit.out, device)
		}
	}
	return nil
}

func cutDevice(flag, text string) (path, value string, err error) {
	path, value, ok := strings.Cut(text, ":")
	if !ok || !strings.HasPrefix(path, "/dev/") {
		return "", "", fmt.Errorf("--%s %q is not /dev/NAME:VALUE", flag, text)
	}
	return path, value, nil
}

func parseThrottle(flag, text string, isBytes bool) (*blkiodev.ThrottleDevice, error) {
	path, value, err := cutDevice(flag, text)
	if err != nil {
		return nil, err
	}
	var rate int64
	if isBytes {
		rate, err = parseSize(value)
	} else {
		rate, err = strconv.ParseInt(value, 10, 64)
	}
	if err != nil || rate < 0 {
		return nil, fmt.Errorf("--%s %q: %q is not a rate", flag, text, value)
	}
	return &blkiodev.ThrottleDevice{Path: path, Rate: uint64(rate)}, nil
}

func ulimits(args []string) ([]*client.Ulimit, error) {
	var out []*client.Ulimit
	for _, text := range args {
		u, err := units.ParseUlimit(text)
		if err != nil {
			return nil, fmt.Errorf("--ulimit %q: %w", text, err)
		}
		out = append(out, &client.Ulimit{Name: u.Name, Hard: u.Hard, Soft: u.Soft})
	}
	return out, nil
}
