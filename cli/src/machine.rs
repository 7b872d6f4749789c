//! What this machine is: processor, threads, instruction sets.

/// The processor's name as the system gives it.
pub(crate) fn cpu_model() -> String {
    let named = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|l| l.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    named.unwrap_or_else(|| format!("{} processor", std::env::consts::ARCH))
}

/// Threads that the CPU backend uses.
pub(crate) fn threads() -> usize {
    rayon::current_num_threads()
}

/// Threads that the system lets this process use.
pub(crate) fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Vector instruction sets found at run time, widest last.
pub(crate) fn simd() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let sets = [
            ("sse4.2", std::arch::is_x86_feature_detected!("sse4.2")),
            ("avx", std::arch::is_x86_feature_detected!("avx")),
            ("f16c", std::arch::is_x86_feature_detected!("f16c")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
            ("avx512bf16", std::arch::is_x86_feature_detected!("avx512bf16")),
        ];
        found.extend(sets.into_iter().filter(|(_, has)| *has).map(|(name, _)| name));
    }
    #[cfg(target_arch = "aarch64")]
    {
        found.push("neon");
    }
    found
}
