int quiet(void);

int main(void)
{
	return quiet();
}
