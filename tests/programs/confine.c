/* confine HOW PROGRAM...: starts a program in surroundings in which its stub has a hard time.
 *   spec-allow     a kernel before 4.17: the flag SPEC_ALLOW is EINVAL
 *   no-seccomp     seccomp() is ENOSYS
 *   no-exit        seccomp() is ENOSYS, and so is exit_group()
 *   no-privileges  seccomp() is EACCES for ever, whatever is given up
 *   forbidden      seccomp() is EPERM, as in containers whose own filter forbids it
 *   no-tsync       a kernel before 3.17: no flag is known, EINVAL
 *   no-no-new      an ordinary user who may not set no_new_privs: prctl() is EPERM
 *   user           an ordinary user without no_new_privs */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define FAIL(number) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (number))
#define IS(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (yes), (no))

static int install(struct sock_filter *filter, unsigned short length)
{
	struct sock_fprog program = {length, filter};
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int argc, char **argv)
{
	struct sock_filter spec_allow[] = {
		LOAD(nr), IS(SYS_seccomp, 0, 3), LOAD(args[1]),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 4, 0, 1), FAIL(EINVAL), ALLOW,
	};
	struct sock_filter no_seccomp[] = {LOAD(nr), IS(SYS_seccomp, 0, 1), FAIL(ENOSYS), ALLOW};
	struct sock_filter no_exit[] = {LOAD(nr), IS(SYS_seccomp, 1, 0), IS(SYS_exit_group, 0, 1), FAIL(ENOSYS), ALLOW};
	struct sock_filter no_privileges[] = {LOAD(nr), IS(SYS_seccomp, 0, 1), FAIL(EACCES), ALLOW};
	struct sock_filter forbidden[] = {LOAD(nr), IS(SYS_seccomp, 0, 1), FAIL(EPERM), ALLOW};
	struct sock_filter no_tsync[] = {LOAD(nr), IS(SYS_seccomp, 0, 1), FAIL(EINVAL), ALLOW};
	struct sock_filter no_no_new[] = {
		LOAD(nr), IS(SYS_prctl, 0, 3), LOAD(args[0]), IS(PR_SET_NO_NEW_PRIVS, 0, 1), FAIL(EPERM), ALLOW,
	};
	struct sock_fprog unprivileged = {sizeof no_no_new / sizeof *no_no_new, no_no_new};
	int failed = argc < 3;
#define USE(name, filter) if (!failed && !strcmp(argv[1], name)) failed = install(filter, sizeof filter / sizeof *filter)
	USE("spec-allow", spec_allow);
	USE("no-seccomp", no_seccomp);
	USE("no-exit", no_exit);
	USE("no-privileges", no_privileges);
	USE("forbidden", forbidden);
	USE("no-tsync", no_tsync);
	/* As root: no_new_privs must not be set already. */
	if (!failed && !strcmp(argv[1], "no-no-new"))
		failed = prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &unprivileged) || setgid(65534) || setuid(65534);
	if (!failed && !strcmp(argv[1], "user"))
		failed = setgid(65534) || setuid(65534);
	if (!failed)
		execv(argv[2], argv + 2);
	perror("confine");
	return 99;
}
