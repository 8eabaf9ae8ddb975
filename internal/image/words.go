package image

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moby/docker-image-spec/specs-go/v1"
)

// The words of a Dockerfile instruction: quotes group, a backslash takes the
// next character as it is, $NAME and ${NAME} (with :-default and :+alternative)
// stand for variables except inside single quotes.

var errQuote = errors.New("unexpected end of statement while looking for matching quote")

// envOf looks variables up in the config's environment.
func envOf(c *v1.DockerOCIImageConfig) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, e := range c.Env {
			if k, v, _ := strings.Cut(e, "="); k == name {
				return v, true
			}
		}
		return "", false
	}
}

// lexer reads words off a string.
type lexer struct {
	s      string
	lookup func(string) (string, bool)
}

// splitWords returns all words of s.
func splitWords(s string, lookup func(string) (string, bool)) ([]string, error) {
	l := &lexer{s, lookup}
	var words []string
	for l.more() {
		w, err := l.word()
		if err != nil {
			return nil, err
		}
		words = append(words, w)
	}
	return words, nil
}

func oneWord(instruction, s string, lookup func(string) (string, bool)) (string, error) {
	words, err := splitWords(s, lookup)
	if err != nil {
		return "", err
	}
	if len(words) != 1 {
		return "", fmt.Errorf("%s requires exactly one argument", instruction)
	}
	return words[0], nil
}

// keyValues reads KEY=VALUE ..., or the old form KEY VALUE with one value that
// is the rest of the line.
func keyValues(c *v1.DockerOCIImageConfig, s string) ([][2]string, error) {
	first, rest, _ := cutSpace(s)
	if !strings.Contains(first, "=") {
		if rest == "" {
			return nil, fmt.Errorf("%q must have two arguments", s)
		}
		l := &lexer{rest, envOf(c)}
		value, err := l.line()
		return [][2]string{{first, value}}, err
	}
	words, err := splitWords(s, envOf(c))
	if err != nil {
		return nil, err
	}
	var pairs [][2]string
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, fmt.Errorf("syntax error - can't find = in %q; must be of the form: name=value", w)
		}
		if key == "" {
			return nil, errors.New("names can not be blank")
		}
		pairs = append(pairs, [2]string{key, value})
	}
	return pairs, nil
}

func (l *lexer) more() bool {
	l.s = strings.TrimLeft(l.s, " \t")
	return l.s != ""
}

// word reads up to the next unquoted space.
func (l *lexer) word() (string, error) { return l.until(" \t") }

// line reads everything.
func (l *lexer) line() (string, error) { return l.until("") }

func (l *lexer) until(stop string) (string, error) {
	var b strings.Builder
	for l.s != "" {
		c := l.s[0]
		if strings.IndexByte(stop, c) >= 0 {
			break
		}
		l.s = l.s[1:]
		var err error
		switch c {
		case '\'':
			i := strings.IndexByte(l.s, '\'')
			if i < 0 {
				return "", errQuote
			}
			b.WriteString(l.s[:i])
			l.s = l.s[i+1:]
		case '"':
			err = l.quoted(&b)
		case '\\':
			if l.s != "" {
				b.WriteByte(l.s[0])
				l.s = l.s[1:]
			}
		case '$':
			err = l.variable(&b)
		default:
			b.WriteByte(c)
		}
		if err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// quoted reads the rest of a double-quoted part.
func (l *lexer) quoted(b *strings.Builder) error {
	for l.s != "" {
		c := l.s[0]
		l.s = l.s[1:]
		switch c {
		case '"':
			return nil
		case '\\':
			if l.s != "" && strings.IndexByte(`"$\`, l.s[0]) >= 0 {
				c, l.s = l.s[0], l.s[1:]
			}
			b.WriteByte(c)
		case '$':
			if err := l.variable(b); err != nil {
				return err
			}
		default:
			b.WriteByte(c)
		}
	}
	return errQuote
}

// variable replaces what follows a dollar sign.
func (l *lexer) variable(b *strings.Builder) error {
	if strings.HasPrefix(l.s, "{") {
		i := strings.IndexByte(l.s, '}')
		if i < 0 {
			return fmt.Errorf("syntax error: missing '}' in %q", "$"+l.s)
		}
		expr := l.s[1:i]
		l.s = l.s[i+1:]
		n := nameLength(expr)
		value, set := l.lookup(expr[:n])
		switch op := expr[n:]; {
		case n == 0:
			return fmt.Errorf("unsupported substitution ${%s}", expr)
		case op == "":
			b.WriteString(value)
		case strings.HasPrefix(op, ":-"):
			if !set || value == "" {
				value = op[2:]
			}
			b.WriteString(value)
		case strings.HasPrefix(op, ":+"):
			if set && value != "" {
				b.WriteString(op[2:])
			}
		default:
			return fmt.Errorf("unsupported modifier in ${%s}", expr)
		}
		return nil
	}
	n := nameLength(l.s)
	if n == 0 {
		b.WriteByte('$')
		return nil
	}
	value, _ := l.lookup(l.s[:n])
	b.WriteString(value)
	l.s = l.s[n:]
	return nil
}

// nameLength returns how long a variable's name s begins with.
func nameLength(s string) int {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9') {
			return i
		}
	}
	return len(s)
}
