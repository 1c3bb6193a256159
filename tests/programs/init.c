/* init, process 1 of a machine: says where the kernel told it that its program headers are and where they are, whether
 * it has a filter, how a child that calls getppid() ends; then the machine is switched off. What it prints goes to the
 * console. */
#include <elf.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

extern const Elf64_Ehdr __ehdr_start;

static int constructed;
static _Thread_local int local = 7;
__attribute__((constructor)) static void construct(void) { constructed = 1; }

int main(void)
{
	struct utsname name;
	int status = 0;
	uname(&name);
	const char *said = (const char *)getauxval(AT_PHDR);
	int headers = (int)getauxval(AT_PHNUM), known = 0, loads = 0;
	const Elf64_Phdr *header = (const Elf64_Phdr *)said;
	for (int i = 0; i < headers; i++) {
		loads += header[i].p_type == PT_LOAD;
		known += header[i].p_type == PT_LOAD && header[i].p_flags == (PF_R | PF_X);
	}
	pid_t child = fork();
	if (!child) {
		syscall(SYS_getppid);
		_exit(0);
	}
	waitpid(child, &status, 0);
	printf("init: Linux %s, process %d, AT_PHDR %s, %s, constructor %d, thread-local %d, filter %d, child's signal %d\n",
		name.release, getpid(), headers == __ehdr_start.e_phnum ? "whole" : "wrong",
		loads > 1 && known ? "headers" : "no headers", constructed, local, prctl(PR_GET_SECCOMP),
		WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	fflush(stdout);
	sync();
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}
