package tree

import (
	"fmt"
	"strconv"
	"strings"
)

// Mode is a change of permission bits, octal or symbolic.
type Mode struct {
	octal   int64 // -1: symbolic
	clauses []clause
}

type clause struct {
	who   uint32 // 0o700, 0o070, 0o007 or a union
	op    byte
	perm  uint32 // rwx of one class, in the lowest bits
	x     bool   // X: execution for directories and what is executable
	suid  bool
	stick bool
	from  byte // u, g or o whose bits are taken; 0 none
}

// ParseMode reads what chmod takes: "755", "u+x,go-w", "a=rX".
func ParseMode(s string) (Mode, error) {
	if n, err := strconv.ParseUint(s, 8, 32); err == nil {
		if n > 0o7777 {
			return Mode{}, badMode(s)
		}
		return Mode{octal: int64(n)}, nil
	}
	m := Mode{octal: -1}
	for part := range strings.SplitSeq(s, ",") {
		c, err := parseClause(part)
		if err != nil {
			return Mode{}, badMode(s)
		}
		m.clauses = append(m.clauses, c...)
	}
	return m, nil
}

func badMode(s string) error {
	return fmt.Errorf("invalid chmod parameter: '%v'. it should be octal string and between 0 and 07777, or symbolic such as u+x", s)
}

func parseClause(s string) ([]clause, error) {
	var who uint32
	i := 0
who:
	for ; i < len(s); i++ {
		switch s[i] {
		case 'u':
			who |= 0o700
		case 'g':
			who |= 0o070
		case 'o':
			who |= 0o007
		case 'a':
			who |= 0o777
		default:
			break who
		}
	}
	if who == 0 {
		who = 0o777
	}
	var out []clause
	for i < len(s) {
		c := clause{who: who, op: s[i]}
		if c.op != '+' && c.op != '-' && c.op != '=' {
			return nil, strconv.ErrSyntax
		}
	perms:
		for i++; i < len(s); i++ {
			switch s[i] {
			case 'r':
				c.perm |= 4
			case 'w':
				c.perm |= 2
			case 'x':
				c.perm |= 1
			case 'X':
				c.x = true
			case 's':
				c.suid = true
			case 't':
				c.stick = true
			case 'u', 'g', 'o':
				c.from = s[i]
			case '+', '-', '=':
				break perms
			default:
				return nil, strconv.ErrSyntax
			}
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, strconv.ErrSyntax
	}
	return out, nil
}

// Apply returns the permission bits after the change.
func (m Mode) Apply(mode uint32, dir bool) uint32 {
	if m.octal >= 0 {
		return uint32(m.octal)
	}
	mode &= 0o7777
	for _, c := range m.clauses {
		perm := c.perm
		switch c.from {
		case 'u':
			perm |= mode >> 6 & 7
		case 'g':
			perm |= mode >> 3 & 7
		case 'o':
			perm |= mode & 7
		}
		if c.x && (dir || mode&0o111 != 0) {
			perm |= 1
		}
		bits := (perm<<6 | perm<<3 | perm) & c.who
		if c.suid {
			if c.who&0o700 != 0 {
				bits |= 0o4000
			}
			if c.who&0o070 != 0 {
				bits |= 0o2000
			}
		}
		if c.stick {
			bits |= 0o1000
		}
		switch c.op {
		case '+':
			mode |= bits
		case '-':
			mode &^= bits
		case '=':
			clear := c.who
			if !dir { // as chmod: a directory keeps them unless they are named
				clear |= specialOf(c.who)
			}
			mode = mode&^clear | bits
		}
	}
	return mode
}

func specialOf(who uint32) uint32 {
	var s uint32
	if who&0o700 != 0 {
		s |= 0o4000
	}
	if who&0o070 != 0 {
		s |= 0o2000
	}
	return s
}
