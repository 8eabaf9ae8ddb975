package spec

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxEnvLine bounds a line of a file of variables or labels.
const maxEnvLine = 1 << 20

// Environment reads --env-file and --env: files first, so that a flag overrides.
// A name without a value takes the caller's; when the caller has none, a flag
// passes the bare name (which removes the image's variable) and a file nothing.
func Environment(files, flags []string) ([]string, error) {
	var env []string
	for _, path := range files {
		err := eachLine(path, func(line string) error {
			name, _, hasValue := strings.Cut(line, "=")
			if err := checkName(name); err != nil {
				return err
			}
			if !hasValue {
				value, ok := os.LookupEnv(name)
				if !ok {
					return nil
				}
				line = name + "=" + value
			}
			env = append(env, line)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("--env-file: %w", err)
		}
	}
	for _, text := range flags {
		name, _, hasValue := strings.Cut(text, "=")
		if name == "" {
			return nil, fmt.Errorf("--env %q: the name is missing", text)
		}
		if value, ok := os.LookupEnv(name); ok && !hasValue {
			text = name + "=" + value
		}
		env = append(env, text)
	}
	return env, nil
}

// labels reads --label-file and --label; a name without a value has "".
func labels(files, flags []string) (map[string]string, error) {
	var out map[string]string
	add := func(text string) {
		if out == nil {
			out = map[string]string{}
		}
		name, value, _ := strings.Cut(text, "=")
		out[name] = value
	}
	for _, path := range files {
		err := eachLine(path, func(line string) error {
			name, _, _ := strings.Cut(line, "=")
			if err := checkName(name); err != nil {
				return err
			}
			add(line)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("--label-file: %w", err)
		}
	}
	for _, text := range flags {
		if text == "" || text[0] == '=' {
			return nil, fmt.Errorf("--label %q: the name is missing", text)
		}
		add(text)
	}
	return out, nil
}

func checkName(name string) error {
	if name == "" {
		return fmt.Errorf("a name is missing")
	}
	if strings.IndexFunc(name, unicode.IsSpace) >= 0 {
		return fmt.Errorf("the name %q contains white space", name)
	}
	return nil
}

// eachLine calls fn with every line of a file that is neither blank nor a
// comment, without its leading white space.
func eachLine(path string, fn func(string) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxEnvLine)
	for number := 1; lines.Scan(); number++ {
		line := lines.Text()
		if !utf8.ValidString(line) {
			return fmt.Errorf("%s, line %d: not UTF-8", path, number)
		}
		if number == 1 {
			line = strings.TrimPrefix(line, "\uFEFF")
		}
		line = strings.TrimLeftFunc(line, unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := fn(line); err != nil {
			return fmt.Errorf("%s, line %d: %w", path, number, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// pairs reads repeated NAME=VALUE arguments of a flag.
func pairs(flag string, args []string) (map[string]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(args))
	for _, text := range args {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--%s %q is not NAME=VALUE", flag, text)
		}
		out[name] = value
	}
	return out, nil
}
