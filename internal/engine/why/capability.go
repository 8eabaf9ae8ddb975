package why

import (
	"regexp"
	"slices"
	"strings"
	"sync"

	"berth/internal/container"
)

// capabilityWords are what programs say, or are called, when a capability of that name
// is what they lack.
var capabilityWords = sync.OnceValue(func() (list []struct {
	name string
	re   *regexp.Regexp
}) {
	for _, w := range [][2]string{
		{"NET_ADMIN", `(?i)rtnetlink|ip6?tables|nft(?:ables)?\b|SIOC[A-Z]+|/dev/net/tun|wireguard|\bwg\b`},
		{"SYS_TIME", `(?i)settimeofday|clock_(?:set|adj)time|adjtimex|(?:can't|cannot) set (?:date|time)`},
		{"SYS_MODULE", `(?i)modprobe|insmod|kernel module`},
		{"SYS_PTRACE", `(?i)ptrace|strace|\bgdb\b`},
		{"SYS_NICE", `(?i)setpriority|sched_set|\bnice\b`},
		{"IPC_LOCK", `(?i)mlock`},
		{"NET_RAW", `(?i)raw socket|SOCK_RAW|\bping6?\b`},
		{"MKNOD", `(?i)mknod`},
		{"SYS_CHROOT", `(?i)chroot`},
		{"CHOWN", `(?i)\bl?chown|changing ownership`},
		{"SETGID", `(?i)setgid|setgroups|setresgid`},
		{"SETUID", `(?i)setuid|setresuid|\bsu\b|su-exec|gosu`},
		{"SYS_ADMIN", `(?i)\bu?mount\b|unshare|setns|pivot_root`},
	} {
		list = append(list, struct {
			name string
			re   *regexp.Regexp
		}{w[0], regexp.MustCompile(w[1])})
	}
	return list
})

// usual are the capabilities, among those, that a container has unless it gives them up.
var usual = []string{"NET_RAW", "MKNOD", "SYS_CHROOT", "CHOWN", "SETGID", "SETUID"}

// lacksCapability guesses from a refusal in words which capability a container would
// have needed and has not. Capabilities do not help a user who is not root.
func (k *Evidence) lacksCapability(words string) string {
	if user, _, _ := strings.Cut(k.Record.Config.User, ":"); user != "" && user != "root" && user != "0" {
		return ""
	}
	for _, c := range capabilityWords() {
		if c.re.MatchString(words) {
			if hasCapability(k.Record, c.name) {
				return ""
			}
			return c.name
		}
	}
	return ""
}

func hasCapability(rec *container.Record, name string) bool {
	listed := func(list []string, name string) bool {
		return slices.ContainsFunc(list, func(s string) bool { return strings.TrimPrefix(strings.ToUpper(s), "CAP_") == name })
	}
	added, dropped := rec.HostConfig.CapAdd, rec.HostConfig.CapDrop
	switch {
	case listed(dropped, name):
		return false
	case listed(added, name):
		return true
	case listed(dropped, "ALL"):
		return false
	}
	return listed(added, "ALL") || slices.Contains(usual, name)
}
