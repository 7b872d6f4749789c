//! Times on a GPU, by events on its stream.

use super::{Row, Spread, data};
use crate::commands::failure;
use crate::failure::Failure;
use crate::tensors::inputs::Loaded;
use crate::work::{self, Work};
use cudarc::driver::{CudaEvent, DriverError, sys::CUevent_flags};
use sparsek::dsl::ir::Instance;
use sparsek::{Kernel, cuda};
use std::collections::BTreeMap;

/// Bytes of inputs beyond which they do not stay in the cache from call to call.
const CACHED: usize = 192 << 20;

/// Most sets of inputs that take turns.
const MOST_SETS: usize = 8;

/// Bytes of one copy when the rate of copies is measured.
const COPIED: usize = 1 << 30;

/// Calls whose launches are timed one by one.
const PROFILED: usize = 5;

/// Bytes that a forward and a backward read and write at least: every tensor once.
pub(crate) fn least_bytes(sizes: &data::Sizes, instance: &Instance) -> (f64, f64) {
    let positions = (sizes.batch * sizes.n) as f64;
    let width = instance.elem.bytes() as f64 * instance.d as f64;
    let (q, kv) = (positions * sizes.hq as f64 * width, positions * sizes.hkv as f64 * width);
    let rows = positions * 4.0 * (sizes.hq + 3 * sizes.hkv) as f64;
    // q k v → o; q k v o d_o → d_q d_k d_v.
    (2.0 * q + 2.0 * kv + rows, 4.0 * q + 4.0 * kv + rows)
}

/// One set of inputs on the device.
struct Set {
    tensors: Vec<(String, cuda::OwnedTensor)>,
    d_o: cuda::OwnedTensor,
}

impl Set {
    fn upload(device: &cuda::Device, loaded: &Loaded) -> Result<Set, sparsek::Error> {
        let up = |tensor: &crate::tensors::file::HostTensor| device.upload(&tensor.view()?);
        let tensors = loaded.tensors().map(|(name, t)| Ok((name.to_owned(), up(t)?)));
        let tensors: Result<Vec<_>, sparsek::Error> = tensors.collect();
        let Some(d_o) = &loaded.d_o else {
            return Err(sparsek::Error::MissingInput {
                kernel: String::new(),
                name: "d_o".to_owned(),
                expected: "[B, N, Hq, D]".to_owned(),
            });
        };
        Ok(Set { tensors: tensors?, d_o: up(d_o)? })
    }

    fn inputs(&self) -> cuda::Inputs<'_> {
        let empty = cuda::Inputs::new();
        self.tensors.iter().fold(empty, |inputs, (name, t)| inputs.with(name, t.view()))
    }
}

fn driver(error: DriverError) -> Failure {
    Failure::new(format_args!("the CUDA driver failed while timing: {error}"))
}

fn mark(device: &cuda::Device) -> Result<CudaEvent, Failure> {
    let event = device.stream().record_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
    event.map_err(driver)
}

/// Times of one sequence length.
pub(crate) fn measure(
    device: &cuda::Device,
    kernel: &Kernel,
    sizes: &data::Sizes,
    scores: data::Scores,
    repeat: usize,
) -> Result<Row, Failure> {
    let instance = kernel.instance();
    let failed = |e: sparsek::Error| failure(e, None);
    let bytes = least_bytes(sizes, instance);
    let count = (CACHED as f64 / bytes.0).ceil().clamp(1.0, MOST_SETS as f64) as usize;
    let sets: Vec<Set> = (0..count as u64)
        .map(|set| Set::upload(device, &data::inputs(instance, sizes, scores, set + 1)))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    let on_gpu = kernel.cuda(device);
    let call = |set: &Set, options: &cuda::Options| -> Result<_, sparsek::Error> {
        let inputs = set.inputs();
        let forward = on_gpu.forward(&inputs, options)?;
        on_gpu.backward(&inputs, &forward, &set.d_o.view(), options)?;
        Ok(forward)
    };
    // The first calls compile and fill the pool of device memory.
    let options = cuda::Options::default();
    let mut pairs = 0;
    for (at, set) in sets.iter().enumerate() {
        let forward = call(set, &options).map_err(failed)?;
        if at == 0 {
            let expiry = forward.expiry().download().map_err(failed)?;
            pairs = work::seen_pairs(&expiry, instance.sinks, None);
        }
    }
    let (forwards, backwards) = back_to_back(device, &on_gpu, &sets, repeat)?;
    let (plan, launches) = profile(&sets, call)?;
    let spread = |times| Spread::of(times).ok_or_else(|| Failure::new("nothing was repeated"));
    let positions = (sizes.batch * sizes.hkv * sizes.n).max(1);
    Ok(Row {
        n: sizes.n,
        seen: pairs as f64 / positions as f64,
        work: Work::new(pairs, sizes.hq / sizes.hkv, instance.d),
        bytes,
        plan: Spread::of(plan),
        forward: spread(forwards)?,
        backward: spread(backwards)?,
        launches,
    })
}

/// Milliseconds of each forward and backward. Nothing waits in between, as in a training step: a
/// wait would also return pooled memory to the driver, and taking it again would be timed.
fn back_to_back(
    device: &cuda::Device,
    kernel: &cuda::Kernel,
    sets: &[Set],
    repeat: usize,
) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let failed = |e: sparsek::Error| failure(e, None);
    let options = cuda::Options::default();
    let mut events = Vec::with_capacity(repeat + 1);
    for set in sets.iter().cycle().take(repeat + 1) {
        let inputs = set.inputs();
        let start = mark(device)?;
        let forward = kernel.forward(&inputs, &options).map_err(failed)?;
        let between = mark(device)?;
        kernel.backward(&inputs, &forward, &set.d_o.view(), &options).map_err(failed)?;
        events.push((start, between, mark(device)?));
    }
    device.synchronize().map_err(failed)?;
    let (mut forwards, mut backwards) = (Vec::new(), Vec::new());
    // The first of the row takes memory for the pool.
    for (start, between, end) in &events[1..] {
        forwards.push(f64::from(start.elapsed_ms(between).map_err(driver)?));
        backwards.push(f64::from(between.elapsed_ms(end).map_err(driver)?));
    }
    Ok((forwards, backwards))
}

/// Milliseconds of the plan module in each profiled call, and the median of every launch.
#[allow(clippy::type_complexity, reason = "two columns of one table")]
fn profile(
    sets: &[Set],
    call: impl Fn(&Set, &cuda::Options) -> Result<cuda::Forward, sparsek::Error>,
) -> Result<(Vec<f64>, Vec<(String, String, f64)>), Failure> {
    let failed = |e: sparsek::Error| failure(e, None);
    let mut plans = Vec::new();
    let mut entries: BTreeMap<usize, (String, String, Vec<f64>)> = BTreeMap::new();
    for set in sets.iter().cycle().take(PROFILED) {
        let profile = cuda::Profile::new();
        let options = cuda::Options { profile: Some(&profile), ..cuda::Options::default() };
        call(set, &options).map_err(failed)?;
        let timings = profile.take().map_err(failed)?;
        let plan = timings.iter().filter(|t| t.module == cuda::Module::Plan).map(|t| f64::from(t.ms));
        plans.push(plan.sum());
        for (at, timing) in timings.iter().enumerate() {
            let named = || (timing.module.name().to_owned(), timing.entry.clone(), Vec::new());
            entries.entry(at).or_insert_with(named).2.push(f64::from(timing.ms));
        }
    }
    let launches = entries.into_values().filter_map(|(module, entry, times)| {
        Some((module, entry, Spread::of(times)?.median))
    });
    Ok((plans, launches.collect()))
}

/// Bytes a second of a copy within the device's memory, reads and writes counted.
pub(crate) fn copy_rate(device: &cuda::Device) -> Result<f64, Failure> {
    let stream = device.stream();
    let (free, _) = device.memory().map_err(|e| failure(e, None))?;
    let bytes = COPIED.min(free / 4);
    let source = stream.alloc_zeros::<u8>(bytes).map_err(driver)?;
    let mut target = stream.alloc_zeros::<u8>(bytes).map_err(driver)?;
    let mut times = Vec::new();
    for _ in 0..11 {
        let start = mark(device)?;
        stream.memcpy_dtod(&source, &mut target).map_err(driver)?;
        let end = mark(device)?;
        times.push(f64::from(start.elapsed_ms(&end).map_err(driver)?));
    }
    let spread = Spread::of(times).ok_or_else(|| Failure::new("nothing was copied"))?;
    Ok(2.0 * bytes as f64 / (spread.median / 1e3))
}
