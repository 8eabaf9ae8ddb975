package client

import (
	"encoding/json"
	"reflect"
	"strings"
)

// MarshalJSON writes what is set. Package json works out every field of every type
// that a value could hold before it writes the first of them: for a request with a
// hundred fields, of which a dozen are set, that takes longer than all else that
// happens before the engine hears of it.
func (r *CreateRequest) MarshalJSON() ([]byte, error) {
	return appendStruct(nil, reflect.ValueOf(r).Elem())
}

// appendStruct appends a struct's fields that are to be written as a JSON object.
func appendStruct(out []byte, v reflect.Value) ([]byte, error) {
	out, err := appendFields(append(out, '{'), v)
	return append(out, '}'), err
}

// appendFields appends the members of an object, those of embedded structs among them.
func appendFields(out []byte, v reflect.Value) (_ []byte, err error) {
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		name, option, _ := strings.Cut(field.Tag.Get("json"), ",")
		if omitted(value, option) {
			continue
		}
		if value.Kind() == reflect.Pointer && value.Elem().Kind() == reflect.Struct {
			value = value.Elem()
		}
		if field.Anonymous {
			if value.Kind() == reflect.Struct { // else it is a pointer to none
				if out, err = appendFields(out, value); err != nil {
					return nil, err
				}
			}
			continue
		}
		if name == "" {
			name = field.Name
		}
		if out[len(out)-1] != '{' {
			out = append(out, ',')
		}
		out = append(append(append(out, '"'), name...), '"', ':')
		if out, err = appendValue(out, value); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func appendValue(out []byte, v reflect.Value) ([]byte, error) {
	if v.Kind() == reflect.Struct {
		return appendStruct(out, v)
	}
	text, err := json.Marshal(v.Interface())
	return append(out, text...), err
}

// omitted tells whether a field's tag leaves out the value that it has.
func omitted(v reflect.Value, option string) bool {
	switch option {
	case "omitzero":
		return v.IsZero()
	case "omitempty":
		switch v.Kind() {
		case reflect.Slice, reflect.Map:
			return v.Len() == 0
		}
		return v.IsZero()
	}
	return false
}
