package build

import (
	"path/filepath"
	"strings"

	"github.com/distribution/reference"

	"berth/internal/fault"
)

// check refuses what can never work before anything is fetched.
func (o *one) check() (err error) {
	if err := o.checkSource(); err != nil {
		return err
	}
	if o.tags, err = parseTags(o.req.Tags); err != nil {
		return err
	}
	if err := o.checkSteps(); err != nil {
		return err
	}
	if o.notes, err = parseAnnotations(o.req.Annotations); err != nil {
		return err
	}
	if o.provenance, err = parseAttests(o.req.Attests); err != nil {
		return err
	}
	if o.provenance != nil && o.req.FilesOnly {
		return fault.New(fault.Invalid, "attest", "provenance", "it belongs to an image, and files alone are wanted")
	}
	return o.notes.check(o.platforms, len(o.platforms) > 1 || o.provenance != nil)
}

// checkSource makes sure that it is clear where context and Dockerfile come from.
func (o *one) checkSource() error {
	const op = "build"
	r := o.req
	n := 0
	for _, given := range []bool{r.ContextDir != "", r.Archive != nil, r.Remote != "", r.Sent[MainContext] != ""} {
		if given {
			n++
		}
	}
	if n > 1 {
		return fault.New(fault.Invalid, op, "", "more than one build context is given")
	}
	if n == 0 && r.Text == nil {
		return fault.New(fault.Invalid, op, "", "neither a build context nor a Dockerfile is given")
	}
	if o.file = r.Dockerfile; o.file == "" {
		o.file = "Dockerfile"
	}
	if filepath.IsAbs(o.file) && r.Text == nil {
		return fault.New(fault.Invalid, "read Dockerfile", o.file, "its path is not relative to the build context")
	}
	return nil
}

func parseTags(list []string) (tags []reference.NamedTagged, err error) {
	for _, t := range list {
		named, err := reference.ParseNormalizedNamed(t)
		if err != nil {
			return nil, fault.New(fault.Invalid, "read tag", t, "%w", err)
		}
		tagged, ok := reference.TagNameOnly(named).(reference.NamedTagged)
		if _, digested := named.(reference.Digested); digested || !ok {
			return nil, fault.New(fault.Invalid, "read tag", t, "a digest cannot be given to an image")
		}
		tags = append(tags, tagged)
	}
	return tags, nil
}

// checkSteps checks what all steps get.
func (o *one) checkSteps() error {
	for _, a := range o.req.Allow {
		if a != "network.host" && a != "security.insecure" {
			return fault.New(fault.Invalid, "read entitlement", a, "unknown").WithHint("known are network.host and security.insecure")
		}
	}
	switch n := o.req.Network; n {
	case "", "default", "none", "host":
	default:
		return fault.New(fault.Unsupported, "read network mode", n, "steps of a build have the default network, none, or the host's")
	}
	for _, h := range o.req.Hosts {
		if name, address, ok := strings.Cut(strings.Replace(h, "=", ":", 1), ":"); !ok || name == "" || address == "" {
			return fault.New(fault.Invalid, "read host", h, "want name:address")
		}
	}
	return nil
}
