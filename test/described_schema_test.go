package test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// description is one version of the Engine API as its makers describe it: what of
// OpenAPI 2 they use to say how answers look.
type description struct {
	Definitions map[string]*schema
	Paths       map[string]struct{ Get, Head, Post, Put, Delete operation }
}

// operation is what a request may be answered with, by status.
type operation struct {
	Responses map[string]struct{ Schema *schema }
}

// schema is what a value may look like.
type schema struct {
	Ref        string `yaml:"$ref"`
	Type       string
	Format     string
	Enum       []any
	Nullable   bool `yaml:"x-nullable"`
	Required   []string
	Properties map[string]*schema
	Items      *schema
	AllOf      []*schema  `yaml:"allOf"`
	Additional additional `yaml:"additionalProperties"`
}

// additional says what members that are not described by name may be.
type additional struct {
	allowed bool
	schema  *schema // nil allows anything
}

// UnmarshalYAML reads a boolean or a schema.
func (a *additional) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		return n.Decode(&a.allowed)
	}
	a.allowed = true
	return n.Decode(&a.schema)
}

func readDescription(path string) (*description, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d := &description{}
	return d, yaml.Unmarshal(text, d)
}

var anyName = regexp.MustCompile(`\{[^}]*\}`)

// answerTo returns the schema of an answer and the path by which the request is
// described; found is false when the description does not know the request or the
// status. Of several paths that fit, the one that says most is meant.
func (d *description) answerTo(method, path string, status int) (s *schema, described string, found bool) {
	path, _, _ = strings.Cut(path, "?")
	literal := func(template string) int { return len(anyName.ReplaceAllString(template, "")) }
	for template := range d.Paths {
		pattern := strings.Split(anyName.ReplaceAllString(template, "\n"), "\n")
		for i := range pattern {
			pattern[i] = regexp.QuoteMeta(pattern[i])
		}
		if ok, _ := regexp.MatchString("^"+strings.Join(pattern, ".+")+"$", path); ok && literal(template) > literal(described) {
			described = template
		}
	}
	p := d.Paths[described]
	operation := map[string]operation{"GET": p.Get, "HEAD": p.Head, "POST": p.Post, "PUT": p.Put, "DELETE": p.Delete}[method]
	response, found := operation.Responses[strconv.Itoa(status)]
	return response.Schema, described, found
}

// whole follows references and puts together what a schema is made of.
func (d *description) whole(s *schema) schema {
	out := *s
	parts := s.AllOf
	if s.Ref != "" {
		parts = append([]*schema{d.Definitions[strings.TrimPrefix(s.Ref, "#/definitions/")]}, parts...)
	}
	if len(parts) == 0 {
		return out
	}
	out.Properties = map[string]*schema{}
	for _, part := range append(parts, &schema{Properties: s.Properties}) {
		if part == nil {
			continue
		}
		p := d.whole(part)
		for name, member := range p.Properties {
			out.Properties[name] = member
		}
		out.Required = append(out.Required[:len(out.Required):len(out.Required)], p.Required...)
		out.Nullable = out.Nullable || p.Nullable
		if p.Type != "" {
			out.Type = p.Type
		}
		if p.Format != "" {
			out.Format = p.Format
		}
		if p.Enum != nil {
			out.Enum = p.Enum
		}
		if p.Items != nil {
			out.Items = p.Items
		}
		if p.Additional.allowed {
			out.Additional = p.Additional
		}
	}
	return out
}

// faults lists what of a value, found at a path of the answer, is not as described.
func (d *description) faults(ref *schema, at string, v any) (out []string) {
	s := d.whole(ref)
	if v == nil {
		// Docker's engine is written in Go and says null for lists and maps with
		// nothing in them, whatever the description says.
		if !s.Nullable && s.Type != "" && s.Type != "array" && s.Type != "object" {
			out = append(out, fmt.Sprintf("%s: null for %s", at, s.Type))
		}
		return out
	}
	kind := kindOf(v)
	if s.Type == "" && (len(s.Properties) > 0) {
		s.Type = "object"
	}
	if s.Type != "" && s.Type != kind && (s.Type != "number" || kind != "integer") {
		return []string{fmt.Sprintf("%s: %s for %s", at, kind, s.Type)}
	}
	if s.Enum != nil && !slices.ContainsFunc(s.Enum, func(e any) bool { return fmt.Sprint(e) == fmt.Sprint(v) }) {
		out = append(out, fmt.Sprintf("%s: %v is none of %v", at, v, s.Enum))
	}
	switch v := v.(type) {
	case string:
		if s.Format == "dateTime" || s.Format == "date-time" {
			if _, err := time.Parse(time.RFC3339Nano, v); err != nil {
				out = append(out, fmt.Sprintf("%s: %q is no time", at, v))
			}
		}
	case []any:
		for _, item := range v {
			if s.Items != nil {
				out = append(out, d.faults(s.Items, at+"[]", item)...)
			}
		}
	case map[string]any:
		out = append(out, d.memberFaults(s, at, v)...)
	}
	return out
}

func (d *description) memberFaults(s schema, at string, members map[string]any) (out []string) {
	for _, name := range s.Required {
		if _, ok := members[name]; !ok {
			out = append(out, fmt.Sprintf("%s.%s: missing", at, name))
		}
	}
	for name, v := range members {
		switch member := s.Properties[name]; {
		case member != nil:
			out = append(out, d.faults(member, at+"."+name, v)...)
		case s.Additional.schema != nil:
			out = append(out, d.faults(s.Additional.schema, at+".*", v)...)
		case len(s.Properties) > 0 && !s.Additional.allowed:
			out = append(out, fmt.Sprintf("%s.%s: unknown", at, name))
		}
	}
	return out
}

func kindOf(v any) string {
	switch v := v.(type) {
	case map[string]any:
		return "object"
	case []any:
		return "array"
	case bool:
		return "boolean"
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return "number"
		}
		return "integer"
	}
	return "string"
}
