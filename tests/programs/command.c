/* Executes a program whose name goes to where it is executed in a structure, as dpkg-deb does with tar. */
#include <unistd.h>

struct command {
	const char *name;
	const char *arguments[4];
};

static __attribute__((noipa)) void prepare(struct command *command, const char *name)
{
	command->name = name;
	command->arguments[0] = name;
}

static __attribute__((noipa)) void execute(struct command *command)
{
	execvp(command->name, (char *const *)command->arguments);
	_exit(127);
}

int main(int count, char **arguments)
{
	struct command command = { 0 };
	(void)count;
	prepare(&command, "stat");
	command.arguments[1] = "--format=%F";
	command.arguments[2] = arguments[1];
	execute(&command);
}
