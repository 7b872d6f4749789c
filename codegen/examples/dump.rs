//! x
use sparsek_codegen::*;
use sparsek_dsl::ir::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (file, name) = a[1].split_once("::").unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    let compiled = sparsek_dsl::parse::compile_file(&text);
    let kernel = compiled.kernels.iter().find(|k| k.ast.name.text == name).unwrap();
    let program = kernel.program.clone().unwrap();
    let elem = sparsek_dsl::Elem::from_name(&a[2]).unwrap();
    let n = |i: usize| a[i].parse::<i64>().unwrap();
    let inst = program.instantiate(&Spec::new(elem, n(3)).k(n(4)).w(n(5))).unwrap();
    let bwd = sparsek_dsl::backward::derive(&inst.program);
    let given = inst.program.inputs.iter().map(|i| Given { name: i.name.clone(), per_head: true }).collect();
    let p = Problem { instance: &inst, backward: &bwd, group: n(6) as u32, given };
    let t = Target::named(&a[7]).unwrap();
    let s = Schedule::choose(&p, &t).unwrap();
    eprintln!("{s}");
    for m in Module::ALL {
        let plan = KernelPlan::new(m, &p, &s, &t).unwrap();
        if a.len() > 9 { println!("{plan}"); }
        std::fs::write(format!("{}.{}.cu", a[8], m.name()), plan.cuda().unwrap().text).unwrap();
    }
}
