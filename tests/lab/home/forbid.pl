# Runs a command that may not make maps of BPF, nor may what it starts (seccomp(2)): systemd then loads no filter of addresses, as in an
# unprivileged container, and the Engine, which needs programs alone, still runs containers.
my ($prctl, $bpf) = `uname -m` =~ /aarch64/ ? (167, 280) : (157, 321);
my @filter = (
    [0x20, 0, 0, 0],             # the number of the system call
    [0x15, 0, 3, $bpf],          # bpf(2)?
    [0x20, 0, 0, 16],            # its command
    [0x15, 0, 1, 0],             # BPF_MAP_CREATE?
    [0x06, 0, 0, 0x00050001],    # EPERM
    [0x06, 0, 0, 0x7fff0000],    # all else goes on
);
my $filter = join "", map { pack "SCCL", @$_ } @filter;
my $program = pack "S x6 P", scalar @filter, $filter;
syscall($prctl, 22, 2, $program, 0, 0) == 0 or die "the filter is not taken: $!";
exec @ARGV or die "it does not run: $!";
