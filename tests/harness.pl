#!/usr/bin/perl
#
# harness.pl JOBS NAME...
#
# Runs tests/one for each NAME, JOBS at a time, and sums up what they print.

use strict;
use warnings;
use FindBin qw($Bin);
use TAP::Harness;

$| = 1;
my ($jobs, @names) = @ARGV;

my $harness = TAP::Harness->new({
	jobs  => $jobs,
	timer => 1,
	exec  => ["$Bin/one"],
});
my $results = $harness->runtests(@names);

my ($passed, $failed) = (0, 0);
for my $name ($results->descriptions) {
	my ($test) = $results->parsers($name);
	my $bad = $test->failed;
	# A test that ended otherwise than it should has failed, whatever it printed.
	$bad = 1 if !$bad && $test->has_problems;
	$passed += $test->passed;
	$failed += $bad;
	show($name, $test) if $bad;
}
print "\n$passed passed, $failed failed\n";
exit($failed || !$passed ? 1 : 0);

# Prints what the failed test printed, why it failed, and how to run it again.
sub show {
	my ($name, $test) = @_;
	my $log = "$Bin/../build/tests/$name.log";
	print "\n=== $name failed ===\n";
	if (open my $lines, '<', $log) {
		my @lines = <$lines>;
		print "(the beginning is in build/tests/$name.log)\n" if @lines > 300;
		print @lines > 300 ? @lines[-300 .. -1] : @lines;
	}
	print "$_\n" for $test->parse_errors;
	printf "it ended with status %d\n", $test->exit if $test->exit;
	my ($kernel, $script) = $name =~ /^(?:([a-z-]+):)?(.*)/;
	print 'again: tests/run ', $kernel ? "--$kernel " : '', "--filter '^$script\$'\n";
}
