// Executes TARGET, or else the program that its first argument names, and prints how that ended.
#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int status;
#ifdef OWN
	if (argc > 1)
		return puts("once more") < 0;
#endif
	pid_t child = fork();
	if (child == 0) {
#ifdef TARGET
		char *const arguments[] = {TARGET, argc > 1 ? argv[1] : "argument", 0};
		execv(TARGET, arguments);
#else
		execvp(argv[1], argv + 1);
#endif
		_exit(errno);
	}
	waitpid(child, &status, 0);
	printf("ended with %d, signal %d\n", WEXITSTATUS(status), WTERMSIG(status));
	return 0;
}
