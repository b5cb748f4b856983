/* SPDX-License-Identifier: MIT */
/* A function outside of any program section: not a program. */
int helper(int a)
{
	return a + 1;
}
