package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"berth/internal/fault"
)

// maxBody bounds a JSON body, in bytes. The largest honest one is a container
// with thousands of labels and environment variables.
const maxBody = 4 << 20

// readBody reads the whole JSON body; empty when there is none.
func (x *exchange) readBody() ([]byte, error) {
	if x.r.Body == nil || x.r.Body == http.NoBody || x.r.ContentLength == 0 {
		return nil, nil
	}
	if ct, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type")); err != nil || ct != "application/json" {
		return nil, fault.New(fault.Invalid, "", "", "unsupported Content-Type header (%s): must be 'application/json'", x.r.Header.Get("Content-Type"))
	}
	if x.r.ContentLength > maxBody {
		return nil, errTooLarge
	}
	b := bytes.NewBuffer(make([]byte, 0, max(x.r.ContentLength+bytes.MinRead, 1024)))
	if _, err := b.ReadFrom(io.LimitReader(x.r.Body, maxBody+1)); err != nil {
		return nil, fault.New(fault.Invalid, "read request body", "", "%w", err)
	}
	if b.Len() > maxBody {
		return nil, errTooLarge
	}
	return b.Bytes(), nil
}

var errTooLarge = tooLarge{fault.New(fault.Invalid, "", "", "request body is larger than %d MiB", maxBody>>20)}

// decode reads the body into v, a pointer to a struct. As in docker, a field that
// the API does not have is no error: clients that speak a version of their own
// leave such traces, dockerode sends the parameters of a request in its body, too.
// What is passed over is kept for ignored. A missing body leaves v as it is.
func (x *exchange) decode(v any) error {
	body, err := x.readBody()
	if err != nil || len(body) == 0 {
		return err
	}
	x.unknown, err = decodeLoose(body, v)
	if len(x.unknown) > 0 {
		x.api.log.Debug("fields of a request were passed over", "method", x.r.Method, "path", x.r.URL.Path, "fields", x.unknown)
	}
	return err
}

// ignored returns a warning for each field of the body that had no effect though
// it held something, but for parameters of the request that are there once more.
func (x *exchange) ignored() []string {
	var warnings []string
	for _, name := range x.unknown {
		if x.query(name) == "" {
			warnings = append(warnings, "the API has no field "+name+": it was passed over and has no effect")
		}
	}
	return warnings
}

// decodeStrict reads body into v, a pointer to a struct, and refuses by name what v
// has no field for, unless it asks for nothing. It is for requests of Berth's own.
func decodeStrict(body []byte, v any) error {
	unknown, err := decodeLoose(body, v)
	if err == nil && len(unknown) > 0 {
		return fault.New(fault.Unsupported, "", "", "this engine does not know the field %s of the request", strings.Join(unknown, ", ")).
			WithHint("leave it out, or set it to its zero value")
	}
	return err
}

// decodeLoose reads body into v, a pointer to a struct, and returns which fields of
// it have no place there and are not zero.
func decodeLoose(body []byte, v any) (unknown []string, err error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	err = dec.Decode(v)
	if err == nil {
		if rest := body[dec.InputOffset():]; len(bytes.TrimSpace(rest)) > 0 {
			return nil, fault.New(fault.Invalid, "", "", "unexpected content after JSON")
		}
		return nil, nil
	}
	// Only now the dear way: find out which fields are unknown and whether they
	// matter, then decode again without them.
	var generic any
	if json.Unmarshal(body, &generic) == nil {
		unknown = unknownFields(generic, reflect.TypeOf(v).Elem(), "", nil)
		slices.Sort(unknown)
		reflect.ValueOf(v).Elem().SetZero()
		err = json.Unmarshal(body, v)
	}
	switch {
	case err == nil:
		return unknown, nil
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fault.New(fault.Invalid, "", "", "invalid JSON: the request body ends early")
	}
	return nil, fault.New(fault.Invalid, "", "", "invalid JSON: %w", err)
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// unknownFields appends the paths of all fields in got which the type t does not
// have and which are not zero.
func unknownFields(got any, t reflect.Type, path string, names []string) []string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		return names
	}
	switch t.Kind() {
	case reflect.Struct:
		members, ok := got.(map[string]any)
		if !ok {
			return names
		}
		known := jsonFields(t, map[string]reflect.Type{})
		for name, value := range members {
			field, ok := known[strings.ToLower(name)]
			switch {
			case ok:
				names = unknownFields(value, field, path+name+".", names)
			case !isZero(value):
				names = append(names, path+name)
			}
		}
	case reflect.Map:
		members, _ := got.(map[string]any)
		for name, value := range members {
			names = unknownFields(value, t.Elem(), path+name+".", names)
		}
	case reflect.Slice, reflect.Array:
		items, _ := got.([]any)
		for _, item := range items {
			names = unknownFields(item, t.Elem(), path, names)
		}
	}
	return names
}

// jsonFields collects the fields of a struct under their lower-case JSON names;
// an outer field hides an embedded one, as in encoding/json.
func jsonFields(t reflect.Type, into map[string]reflect.Type) map[string]reflect.Type {
	var embedded []reflect.Type
	for f := range t.Fields() {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		ft := f.Type
		for ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		if f.Anonymous && tag == "" && ft.Kind() == reflect.Struct {
			embedded = append(embedded, ft)
			continue
		}
		if !f.IsExported() || tag == "-" {
			continue
		}
		if tag == "" {
			tag = f.Name
		}
		into[strings.ToLower(tag)] = f.Type
	}
	for _, et := range embedded {
		for name, ft := range jsonFields(et, map[string]reflect.Type{}) {
			if _, hidden := into[name]; !hidden {
				into[name] = ft
			}
		}
	}
	return into
}

// isZero reports whether a decoded JSON value asks for nothing.
func isZero(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case float64:
		return v == 0
	case string:
		return v == ""
	case []any:
		return !slices.ContainsFunc(v, func(e any) bool { return !isZero(e) })
	case map[string]any:
		for _, e := range v {
			if !isZero(e) {
				return false
			}
		}
		return true
	}
	return false
}
