//! Calls on a GPU beside their numbers: strides, streams, graphs, packed and empty tensors, kept
//! modules. Without a GPU or NVRTC there is nothing to do.
#![cfg(feature = "jit")]
#![allow(unsafe_code, reason = "what is tested takes addresses and results on trust")]

mod common;

use common::{Case, D, HKV, HQ, Local, check_against_the_cpu, local, local_of, results, views};
use cudarc::driver::CudaSlice;
use cudarc::driver::sys::CUgraphInstantiate_flags;
use cudarc::driver::sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
use half::bf16;
use sparsek::cuda::{
    BackwardCall, Device, ForwardCall, Image, Memory, MemoryMut, Module, Options, Profile,
    Sequences, TensorShape, TensorView, TensorViewMut, devices, nvrtc::Nvrtc, shapes,
};
use sparsek::{DType, Elem, NamedTensors, Spec};

/// A GPU of this machine; `None` where there is none.
fn device() -> Option<Device> {
    match devices().and_then(|_| Nvrtc::find()).and_then(|_| Device::new(0)) {
        Ok(device) => Some(device),
        Err(e) => {
            eprintln!("skipped: {e}");
            None
        }
    }
}

#[test]
fn close_to_the_cpu() {
    let Some(device) = device() else { return };
    check_against_the_cpu(local().cuda(&device).kernel(), &Case::new(2, 300));
}

/// A row's exponentials are taken by the reference that earlier keys gave it: logits that grow from key to key exceed it, by so
/// much in the end that they are infinite.
#[test]
fn logits_that_grow_late() {
    let Some(device) = device() else { return };
    for steepness in [3.0, 30.0, 3000.0] {
        let n = 500;
        let mut case = Case::new(1, n);
        case.k_and_w = [64, 256];
        for (at, key) in case.vectors[1].iter_mut().enumerate() {
            let position = at / (HKV * D);
            *key = bf16::from_f32(key.to_f32() * steepness * position as f32 / n as f32);
        }
        let local = local_of(Elem::Bf16, case.k_and_w);
        check_against_the_cpu(local.cuda(&device).kernel(), &case);
    }
}

/// Transposed and repeated inputs, on a stream that is not the device's first: the same bits.
#[test]
fn strides_and_streams_change_nothing() {
    let Some(device) = device() else { return };
    let (local, case) = (local(), Case::new(2, 200));
    let uploaded = case.upload(&device);
    let expected = local.cuda(&device).forward(&views(&uploaded)).unwrap().o().download().unwrap();
    let other = Device::from_stream(device.context().new_stream().unwrap()).unwrap();
    // q as [Hq, B, N, D] in memory.
    let mut transposed = vec![bf16::ZERO; case.vectors[0].len()];
    let (batch, n) = (2, 200);
    for (row, vector) in case.vectors[0].chunks_exact(D).enumerate() {
        let (b, i, h) = (row / (n * HQ), row / HQ % n, row % HQ);
        let at = ((h * batch + b) * n + i) * D;
        transposed[at..at + D].copy_from_slice(vector);
    }
    let q: CudaSlice<bf16> = other.stream().clone_htod(&transposed).unwrap();
    let strides = [n * D, D, batch * n * D, 1];
    let mut inputs = views(&uploaded);
    inputs.q = TensorView::strided(&q, 0, &[batch, n, HQ, D], &strides).unwrap();
    device.synchronize().unwrap();
    let found = local.cuda(&other).forward(&inputs).unwrap().o().download().unwrap();
    assert_eq!(found, expected);
    // One element further the vectors are not aligned.
    let shifted: CudaSlice<bf16> =
        other.stream().clone_htod(&vec![bf16::ZERO; q.len() + 1]).unwrap();
    inputs.q = TensorView::strided(&shifted, 1, &[batch, n, HQ, D], &strides).unwrap();
    let message = local.cuda(&other).forward(&inputs).unwrap_err().to_string();
    assert!(message.contains("`q`") && message.contains("16 bytes"), "{message}");
}

/// Launches begin before those before them have ended, in memory that the call before used: whatever a
/// multiprocessor still knows of that call's numbers must not be read.
#[test]
fn calls_without_a_wait_between_them_do_not_mix() {
    let Some(device) = device() else { return };
    let (local, n) = (local(), 5000);
    let kernel = local.cuda(&device);
    let uploaded = [0, 100].map(|seed| Case::of_seed(seed, 2, n).upload(&device));
    let d_o = device.upload(&Case::new(2, n).view("d_o")).unwrap();
    let call = |which: usize| {
        let inputs = views(&uploaded[which]);
        let forward = kernel.forward(&inputs).unwrap();
        let gradients = kernel.backward(&inputs, &forward, &d_o.view()).unwrap();
        (forward, gradients)
    };
    let alone = [0, 1].map(|which| {
        device.synchronize().unwrap();
        let (forward, _) = call(which);
        let tensors = [forward.o(), forward.tau(), forward.expiry(), forward.lse()];
        tensors.map(|t| t.download().unwrap())
    });
    assert_ne!(alone[0][1], alone[1][1]);
    for at in 0..210 {
        let (forward, _) = call(at % 2);
        if at % 7 == 6 {
            let tensors = [forward.o(), forward.tau(), forward.expiry(), forward.lse()];
            assert_eq!(tensors.map(|t| t.download().unwrap()), alone[at % 2], "call {at}");
        }
    }
}

/// A forward and a backward call with the caller's memory, captured into a graph and run twice.
#[test]
fn prepared_calls_are_captured() {
    let Some(device) = device() else { return };
    let (local, case) = (local(), Case::new(1, 700));
    let expected = results(local.cuda(&device).kernel(), &case, None);
    // SAFETY: one stream does everything here.
    unsafe { device.context().disable_event_tracking() };
    let device = Device::from_stream(device.context().new_stream().unwrap()).unwrap();
    let stream = device.stream().clone();
    let uploaded = case.upload(&device);
    let inputs = views(&uploaded).by_name();
    let d_o = device.upload(&case.view("d_o")).unwrap();
    let kernel = local.cuda(&device);
    let prepared = kernel.kernel().prepare(&shapes(&inputs), None, None).unwrap();
    let backward = prepared.backward(None, None).unwrap();
    let bytes = |bytes: u64| stream.alloc_zeros::<u8>(bytes as usize + 1).unwrap();
    let mut saved = bytes(prepared.saved_bytes());
    let mut scratch = bytes(prepared.scratch_bytes().max(backward.scratch_bytes()));
    let zeros = |shape: &TensorShape| {
        let len: usize = shape.shape.iter().product();
        bytes((len * shape.dtype.bytes()) as u64)
    };
    let made = |shapes: &NamedTensors<TensorShape>| -> Vec<(String, TensorShape, CudaSlice<u8>)> {
        shapes.iter().map(|(n, s)| (n.to_owned(), s.clone(), zeros(s))).collect()
    };
    let (outputs, gradients) = (made(prepared.outputs()), made(backward.gradients()));
    let address = |slice: &CudaSlice<u8>| {
        use cudarc::driver::DevicePtr;
        slice.device_ptr(&stream).0
    };
    let strides = |shape: &[usize]| -> Vec<usize> {
        (0..shape.len()).map(|at| shape[at + 1..].iter().product()).collect()
    };
    let written = |all: &[(String, TensorShape, CudaSlice<u8>)]| {
        all.iter().fold(NamedTensors::new(), |out, (name, s, memory)| {
            let strides = strides(&s.shape);
            // SAFETY: the slice has the tensor's bytes and outlives the graph.
            let view = unsafe {
                TensorViewMut::from_raw(address(memory), &s.shape, &strides, s.dtype, &device)
            };
            out.with(name, view)
        })
    };
    let read = |all: &[(String, TensorShape, CudaSlice<u8>)]| {
        all.iter().fold(NamedTensors::new(), |out, (name, s, memory)| {
            let strides = strides(&s.shape);
            // SAFETY: as above.
            let view = unsafe {
                TensorView::from_raw(address(memory), &s.shape, &strides, s.dtype, &device)
            };
            out.with(name, view)
        })
    };
    stream.synchronize().unwrap();
    stream.begin_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    let call = ForwardCall {
        inputs: &inputs,
        outputs: &mut written(&outputs),
        saved: MemoryMut::new(&mut saved),
        scratch: MemoryMut::new(&mut scratch),
        sequences: None,
        profile: None,
    };
    prepared.forward_into(&stream, call).unwrap();
    let call = BackwardCall {
        inputs: &inputs,
        outputs: &read(&outputs),
        d_o: &d_o.view(),
        gradients: &mut written(&gradients),
        saved: Memory::new(&saved),
        scratch: MemoryMut::new(&mut scratch),
        sequences: None,
        profile: None,
    };
    // SAFETY: outputs and saved are those of the forward call before.
    unsafe { backward.backward_into(&stream, call) }.unwrap();
    let graph = stream.end_capture(CUgraphInstantiate_flags(0));
    let graph = graph.unwrap().unwrap();
    graph.launch().unwrap();
    graph.launch().unwrap();
    stream.synchronize().unwrap();
    for (name, shape, memory) in outputs.iter().chain(&gradients) {
        let bytes: Vec<u8> = stream.clone_dtoh(memory).unwrap();
        let (_, expected) = expected.iter().find(|(n, _)| n == name).unwrap();
        let found: Vec<f32> = match shape.dtype {
            DType::Bf16 => {
                bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
            }
            DType::I32 => bytes
                .chunks_exact(4)
                .map(|b| i32::from_le_bytes(b.try_into().unwrap()) as f32)
                .collect(),
            DType::F32 | DType::F16 => {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
            }
        };
        assert_eq!(found[..expected.data().len()], expected.to_f32(), "{name}");
    }
}

#[test]
fn packed_sequences_are_separate_calls() {
    let Some(device) = device() else { return };
    let (local, case) = (local(), Case::new(1, 500));
    let kernel = local.cuda(&device);
    let packed = results(kernel.kernel(), &case, Some(&[0, 180, 180, 500]));
    let o = packed[0].1.to_f32();
    let heads = [HQ, HKV, HKV, HQ];
    let first = Case {
        k_and_w: case.k_and_w,
        shapes: [vec![1, 180, HQ, D], vec![1, 180, HKV, D], vec![1, HKV, 180]],
        vectors: std::array::from_fn(|i| case.vectors[i][..180 * heads[i] * D].to_vec()),
        u: (0..HKV).flat_map(|g| case.u[g * 500..][..180].to_vec()).collect(),
        slope: case.slope.clone(),
    };
    let alone = results(kernel.kernel(), &first, None);
    assert_eq!(o[..180 * HQ * D], alone[0].1.to_f32());
    let uploaded = case.upload(&device);
    let sequences = Sequences::upload(&device, &[0, 499]).unwrap();
    let options = Options { sequences: Some(&sequences), ..Options::default() };
    let message = kernel.forward_with(&views(&uploaded), &options).unwrap_err().to_string();
    assert!(message.contains("cu_seqlens") && message.contains("499"), "{message}");
}

#[test]
fn empty_tensors_launch_nothing() {
    let Some(device) = device() else { return };
    let local = local();
    for (batch, n) in [(0, 10), (1, 0)] {
        let case = Case::new(batch, n);
        let all = results(local.cuda(&device).kernel(), &case, None);
        for (name, tensor) in all {
            let zero = tensor.to_f32().iter().all(|x| *x == 0.0);
            assert!(zero, "{name} with batch {batch} and {n} positions");
        }
    }
}

/// Every kernel is timed; images of a kernel run in the place of compiling.
#[test]
fn kernels_are_timed_and_kept() {
    let Some(device) = device() else { return };
    let (local, case) = (local(), Case::new(1, 300));
    let uploaded = case.upload(&device);
    let kernel = local.cuda(&device);
    let profile = Profile::new();
    let options = Options { profile: Some(&profile), ..Options::default() };
    let forward = kernel.forward_with(&views(&uploaded), &options).unwrap();
    let timings = profile.take().unwrap();
    assert!(timings.len() >= 2 && timings.iter().all(|t| t.ms > 0.0), "{timings:?}");
    assert!(profile.take().unwrap().is_empty());
    let profile = Profile::of_modules();
    let options = Options { profile: Some(&profile), ..Options::default() };
    kernel.forward_with(&views(&uploaded), &options).unwrap();
    let timings = profile.take().unwrap();
    let found: Vec<_> = timings.iter().map(|t| (t.module, t.entry.as_str())).collect();
    assert_eq!(found, [(Module::Plan, ""), (Module::Forward, "")]);
    assert!(timings.iter().all(|t| t.ms > 0.0), "{timings:?}");

    let images = kernel.kernel().images();
    assert_eq!(images.len(), 2);
    let again = local.kernel().cuda(&device).with_cache(None);
    for image in images {
        again.add_image(Image::from_bytes(&image.to_bytes().unwrap()).unwrap()).unwrap();
    }
    let found = again.forward(&views(&uploaded).by_name(), &Options::default()).unwrap();
    assert_eq!(found.o().download().unwrap(), forward.o().download().unwrap());
    let other = Local::new(Spec::new(Elem::Bf16, D as i64).k(33).w(48)).unwrap();
    let image = kernel.kernel().images().remove(0);
    let message = other.kernel().cuda(&device).add_image(image).unwrap_err().to_string();
    assert!(message.contains("another instance"), "{message}");
}
