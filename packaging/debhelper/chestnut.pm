# The debhelper sequence of `dh $@ --with chestnut`. It has no package of its own: what dh offers to sequences is in main.
use strict;
use warnings;

# Behind dh_dwz and dh_strip, which change what is in the file, and before dh_shlibdeps and dh_md5sums, which read it.
insert_after('dh_strip', 'dh_chestnut');

1;
