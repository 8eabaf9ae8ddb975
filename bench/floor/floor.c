/* The least a container start can cost: clone into mount, uts, ipc, pid and
 * (with -n) net namespaces, mount an overlay and proc, pivot, exec, wait.
 * usage: floor [-n] LOWER UPPER WORK MERGED PROGRAM [ARG...] */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char **args;

static void must(int failed, const char *what)
{
	if (failed) {
		perror(what);
		_exit(125);
	}
}

static int child(void *unused)
{
	char options[4096];

	(void)unused;
	must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
	snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", args[0], args[1], args[2]);
	must(mount("overlay", args[3], "overlay", 0, options), "overlay");
	must(chdir(args[3]), "chdir");
	must(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "proc");
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "umount2");
	must(chdir("/"), "chdir /");
	execv(args[4], args + 4);
	must(1, "execv");
	return 125;
}

int main(int argc, char **argv)
{
	static char stack[65536] __attribute__((aligned(16)));
	int flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_VM | CLONE_VFORK | SIGCHLD;
	int status, pid;

	args = argv + 1;
	if (argc > 1 && !strcmp(argv[1], "-n")) {
		flags |= CLONE_NEWNET;
		args++, argc--;
	}
	if (argc < 6) {
		fprintf(stderr, "usage: floor [-n] LOWER UPPER WORK MERGED PROGRAM [ARG...]\n");
		return 2;
	}
	pid = clone(child, stack + sizeof stack, flags, NULL);
	must(pid < 0, "clone");
	must(waitpid(pid, &status, 0) < 0, "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
