/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of CPUID's feature bits, as in Linux' arch/x86/include/asm/cpufeatures.h; bits:
 * Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E; KVM's own: Linux
 * Documentation/virt/kvm/x86/cpuid.rst.
 */
#include "base/bytes.h"
#include "vmm/x86/cpu_compare.h"

struct word {
	uint32_t function, index;
	enum x86_cpuid_register reg;
	const char *names[32];
};

/* clang-format off */
static const struct word words[] = {
	{ 0x1, 0, X86_ECX, {
		"pni", "pclmulqdq", "dtes64", "monitor", "ds_cpl", "vmx", "smx", "est",
		"tm2", "ssse3", "cid", "sdbg", "fma", "cx16", "xtpr", "pdcm",
		[17] = "pcid", "dca", "sse4_1", "sse4_2", "x2apic", "movbe", "popcnt",
		"tsc_deadline_timer", "aes", "xsave", "osxsave", "avx", "f16c", "rdrand", "hypervisor" } },
	{ 0x1, 0, X86_EDX, {
		"fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce",
		"cx8", "apic", [11] = "sep", "mtrr", "pge", "mca", "cmov",
		"pat", "pse36", "pn", "clflush", [21] = "dts", "acpi", "mmx",
		"fxsr", "sse", "sse2", "ss", "ht", "tm", "ia64", "pbe" } },
	{ 0x7, 0, X86_EBX, {
		"fsgsbase", "tsc_adjust", "sgx", "bmi1", "hle", "avx2", "fdp_excptn_only", "smep",
		"bmi2", "erms", "invpcid", "rtm", "cqm", "zero_fcs_fds", "mpx", "rdt_a",
		"avx512f", "avx512dq", "rdseed", "adx", "smap", "avx512ifma", [23] = "clflushopt",
		"clwb", "intel_pt", "avx512pf", "avx512er", "avx512cd", "sha_ni", "avx512bw", "avx512vl" } },
	{ 0x7, 0, X86_ECX, {
		[1] = "avx512vbmi", "umip", "pku", "ospke", "waitpkg", "avx512_vbmi2", "shstk",
		"gfni", "vaes", "vpclmulqdq", "avx512_vnni", "avx512_bitalg", "tme", "avx512_vpopcntdq",
		[16] = "la57", [22] = "rdpid", [24] = "bus_lock_detect", "cldemote",
		[27] = "movdiri", "movdir64b", "enqcmd", "sgx_lc", "pks" } },
	{ 0x7, 0, X86_EDX, {
		[2] = "avx512_4vnniw", "avx512_4fmaps", "fsrm", "uintr", [8] = "avx512_vp2intersect",
		"srbds_ctrl", "md_clear", [14] = "serialize", "hybrid_cpu", "tsxldtrk", [18] = "pconfig",
		"arch_lbr", "ibt", [22] = "amx_bf16", "avx512_fp16", "amx_tile", "amx_int8",
		"spec_ctrl", "intel_stibp", "flush_l1d", "arch_capabilities", "core_capabilities", "spec_ctrl_ssbd" } },
	{ 0x7, 1, X86_EAX, {
		"sha512", "sm3", "sm4", [4] = "avx_vnni", "avx512_bf16", [7] = "cmpccxadd",
		[10] = "fzrm", "fsrs", "fsrc", [18] = "lkgs", [21] = "amx_fp16", [23] = "avx_ifma", [26] = "lam" } },
	{ 0x7, 1, X86_EDX, {
		[4] = "avx_vnni_int8", "avx_ne_convert", [8] = "amx_complex", [10] = "avx_vnni_int16",
		[14] = "prefetchiti", [19] = "avx10" } },
	{ 0x7, 2, X86_EDX, {
		"intel_psfd", "ipred_ctrl", "rrsba_ctrl", "ddpd_u", "bhi_ctrl", "mcdt_no" } },
	{ 0xd, 0, X86_EAX, {
		"xsave_x87", "xsave_sse", "xsave_avx", "xsave_bndregs", "xsave_bndcsr", "xsave_opmask",
		"xsave_zmm_hi256", "xsave_hi16_zmm", [9] = "xsave_pkru", [17] = "xsave_xtilecfg", "xsave_xtiledata" } },
	{ 0xd, 1, X86_EAX, { "xsaveopt", "xsavec", "xgetbv1", "xsaves", "xfd" } },
	{ 0x40000001, 0, X86_EAX, {
		"kvmclock", "kvm_nopiodelay", "kvm_mmu", "kvmclock2", "kvm_asyncpf", "kvm_steal_time",
		"kvm_pv_eoi", "kvm_pv_unhalt", [9] = "kvm_pv_tlb_flush", "kvm_asyncpf_vmexit", "kvm_pv_ipi",
		"kvm_poll_control", "kvm_pv_sched_yield", "kvm_asyncpf_int", "kvm_msi_ext_dest_id",
		"kvm_hc_map_gpa_range", "kvm_migration_control", [24] = "kvmclock_stable" } },
	{ 0x80000001, 0, X86_ECX, {
		"lahf_lm", "cmp_legacy", "svm", "extapic", "cr8_legacy", "abm", "sse4a", "misalignsse",
		"3dnowprefetch", "osvw", "ibs", "xop", "skinit", "wdt", [15] = "lwp",
		"fma4", "tce", [19] = "nodeid_msr", [21] = "tbm", "topoext", "perfctr_core",
		"perfctr_nb", [26] = "bpext", "ptsc", "perfctr_llc", "mwaitx" } },
	{ 0x80000001, 0, X86_EDX, {
		[11] = "syscall", [19] = "mp", "nx", [22] = "mmxext", [25] = "fxsr_opt", "pdpe1gb",
		"rdtscp", [29] = "lm", "3dnowext", "3dnow" } },
	{ 0x80000007, 0, X86_EDX, { [8] = "constant_tsc" } },
	{ 0x80000008, 0, X86_EBX, {
		"clzero", "irperf", "xsaveerptr", [4] = "rdpru", [9] = "wbnoinvd", [12] = "ibpb",
		[14] = "ibrs", "stibp", [17] = "stibp_always_on", [23] = "amd_ppin", "ssbd",
		"virt_ssbd", "ssb_no", "cppc", "psfd", "btc_no", "ibpb_ret" } },
	{ 0x80000021, 0, X86_EAX, {
		"no_nested_data_bp", [2] = "lfence_rdtsc", [6] = "null_sel_clr_base", [8] = "autoibrs",
		"no_smm_ctl_msr", [27] = "sbpb", "ibpb_brtype", "srso_no" } },
};
/* clang-format on */

const char *x86_feature_name(uint32_t function, uint32_t index, enum x86_cpuid_register reg,
			     unsigned int bit)
{
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (words[i].function == function && words[i].index == index && words[i].reg == reg)
			return bit < 32 ? words[i].names[bit] : NULL;
	return NULL;
}
