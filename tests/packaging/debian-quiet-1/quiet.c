int quiet(void)
{
	return 0;
}
