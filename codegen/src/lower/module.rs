//! What every module has: constants, the parameter struct, and how rows, columns and uniform values
//! are loaded.

use super::elementwise::{Body, Domain, Expressions};
use crate::plan::{Constant, Field, Values};
use crate::{
    Axis, Buffer, Error, Factor, Family, Interface, Keep, KernelPlan, Launch, Module, Parameter,
    Problem, Product, Scalar, Schedule, Target,
};
use sparsek_dsl::Elem;
use sparsek_dsl::ir::{Class, Coord, InputId, Kind, Op, Role, ValueId};
use std::collections::BTreeSet;

/// A module under construction.
pub(crate) struct Builder<'a> {
    pub(crate) problem: &'a Problem<'a>,
    pub(crate) schedule: &'a Schedule,
    pub(crate) values: Values,
    pub(crate) interface: Interface,
    target: &'a Target,
    module: Module,
    /// Tensors and buffers that the parameter struct has.
    declared: BTreeSet<String>,
}

/// A longer window is one of so many keys: of up to as many positions it holds all, and the query at which a key
/// leaves it is a number of 32 bits.
const MOST_WINDOW: usize = 1 << 30;

impl<'a> Builder<'a> {
    pub(crate) fn new(
        module: Module,
        problem: &'a Problem<'a>,
        schedule: &'a Schedule,
        target: &'a Target,
    ) -> Builder<'a> {
        let mut this = Builder {
            problem,
            schedule,
            values: element(problem.instance.elem),
            interface: Interface { parameters: vec![], buffers: vec![], launches: vec![] },
            target,
            module,
            declared: BTreeSet::new(),
        };
        for (parameter, field) in [
            (Parameter::Rows, "long long rows;"),
            (Parameter::Sequences, "long long sequences;"),
            (Parameter::N, "long long n;"),
            (Parameter::Hq, "long long hq;"),
            (Parameter::Hkv, "long long hkv;"),
            (Parameter::CuSeqlens, "const int* cu_seqlens;"),
        ] {
            this.interface.parameters.push(parameter);
            this.values.fields.push(field.to_owned());
        }
        this.selection_constants();
        this
    }

    fn selection_constants(&mut self) {
        let instance = self.problem.instance;
        let k = instance.program.gate().map_or(0, |_| instance.k);
        let sinks = instance.sinks;
        let chunk = self.schedule.chunk as usize;
        self.values.has_topk = instance.program.gate().is_some();
        let has_topk = self.values.has_topk;
        self.constant("int", "D", instance.d, "head dimension");
        self.constant("int", "K", k, "selected keys");
        self.constant("bool", "HAS_TOPK", has_topk, "");
        self.constant("int", "WINDOW", instance.w.min(MOST_WINDOW), "");
        self.constant("int", "SINKS", sinks, "");
        self.constant("int", "GROUP", self.problem.group, "query heads of a key-value head");
        self.constant("int", "CHUNK", chunk, "queries of a chunk of the plan");
        self.constant("int", "CHUNK_KEYS", k + sinks + chunk, "keys of a chunk's list, at most");
    }

    pub(crate) fn constant(
        &mut self,
        ty: &'static str,
        name: &'static str,
        value: impl ToString,
        note: &str,
    ) {
        let (value, note) = (value.to_string(), note.to_owned());
        self.values.constants.push(Constant { ty, name, value, note });
    }

    /// Declares a tensor of the caller's, once.
    pub(crate) fn tensor(&mut self, name: &str, scalar: Scalar, written: bool, axes: &[Axis]) {
        if !self.declared.insert(format!("tensor {name}")) {
            return;
        }
        let field = tensor_field(name);
        let constant = if written { "" } else { "const " };
        let mut text = format!("{constant}{}* {field};", c_type(scalar));
        for axis in axes {
            text.push_str(&format!(" long long {field}_{};", axis_name(*axis)));
        }
        self.values.fields.push(text);
        let (name, axes) = (name.to_owned(), axes.to_vec());
        self.interface.parameters.push(Parameter::Tensor { name, scalar, written, axes });
    }

    /// Declares a buffer, once.
    pub(crate) fn buffer(&mut self, buffer: Buffer) {
        if !self.declared.insert(format!("buffer {}", buffer.name)) {
            return;
        }
        self.values.fields.push(format!("{}* {};", c_type(buffer.scalar), buffer.name));
        self.interface.parameters.push(Parameter::Buffer(buffer.name.clone()));
        self.interface.buffers.push(buffer);
    }

    /// A buffer of one call.
    pub(crate) fn scratch(&mut self, name: &str, scalar: Scalar, len: &[Factor]) {
        let (name, len) = (name.to_owned(), Product::new(len));
        self.buffer(Buffer { name, scalar, len, zeroed: false, keep: Keep::Scratch });
    }

    pub(crate) fn launch(&mut self, entry: &str, grid: [&[Factor]; 3], threads: u32, shared: u32) {
        let (entry, grid) = (entry.to_owned(), grid.map(Product::new));
        self.interface.launches.push(Launch { entry, grid, threads, shared });
    }

    /// A vector tensor of queries or keys.
    pub(crate) fn vector(&mut self, name: &str, written: bool) {
        self.tensor(name, Scalar::Elem, written, &[Axis::Batch, Axis::Position, Axis::Head]);
    }

    /// How the score of a key is read: from the input as it is, or from the buffer of scores.
    pub(crate) fn score(&mut self) {
        let Some(gate) = self.problem.instance.program.gate() else { return };
        if self.score_is_input(gate.score) {
            self.tensor("u", Scalar::F32, false, &[Axis::Batch, Axis::Head, Axis::Position]);
            self.values.scores_of =
                "a.u + s.row * a.u_batch + g * a.u_head + s.start * a.u_position";
            self.values.score_stride = "a.u_position";
        } else {
            let len = Product::new(&[Factor::Rows, Factor::Hkv, Factor::N]);
            let (name, scalar) = ("scores".to_owned(), Scalar::F32);
            self.buffer(Buffer { name, scalar, len, zeroed: false, keep: Keep::Saved });
            self.values.scores_of = "a.scores + (s.row * a.hkv + g) * a.n + s.start";
            self.values.score_stride = "1";
        }
    }

    pub(crate) fn score_is_input(&self, score: ValueId) -> bool {
        let program = &self.problem.instance.program;
        matches!(program.node(score).op, Op::Input(id) if program.input(id).role == Role::Score)
    }

    /// The expression that loads a leaf; `None` for coordinates that structs hold.
    fn load(&mut self, e: &Expressions<'_>, v: ValueId) -> Result<Option<String>, Error> {
        match &e.program.node(v).op {
            Op::Input(id) => self.load_input(e, *id).map(Some),
            Op::Coord(Coord::QueryPos | Coord::QueryHead | Coord::KeyPos) => Ok(None),
            Op::Coord(Coord::KeyHead) => Ok(Some("g".to_owned())),
            Op::Coord(Coord::Batch) => Ok(Some("s.index".to_owned())),
            Op::Dot(..) => {
                let buffer = row_dot_buffer(e, v);
                Ok(Some(format!("a.{buffer}[(s.row * a.hq + head) * a.n + token]")))
            }
            _ => Err(e.unsupported("a value is needed before it is known")),
        }
    }

    fn load_input(&mut self, e: &Expressions<'_>, id: InputId) -> Result<String, Error> {
        let input = e.program.input(id);
        if input.role == Role::Lse {
            self.tensor("lse", Scalar::F32, false, &[]);
            return Ok("a.lse[(s.row * a.hq + head) * a.n + token]".to_owned());
        }
        let scalar = match input.ty.kind {
            Kind::F32 => Scalar::F32,
            Kind::I32 => Scalar::I32,
            Kind::Bool | Kind::Vector => return Err(e.unsupported("arithmetic on vectors")),
        };
        let (axes, head): (&[Axis], _) = match (input.role, input.ty.class) {
            (Role::Score, _) => (&[Axis::Batch, Axis::Head, Axis::Position], "g"),
            (_, Class::PerHead) => (&[Axis::Head], "head"),
            (_, Class::PerQuery) => (&[Axis::Batch, Axis::Position, Axis::Head], "head"),
            (_, Class::PerKey) => (&[Axis::Batch, Axis::Position, Axis::Head], "g"),
            (_, Class::Scalar | Class::PerBatch | Class::Pair) => (&[], ""),
        };
        self.tensor(&input.name, scalar, false, axes);
        let name = tensor_field(&input.name);
        let term = |axis: &Axis| match axis {
            Axis::Batch => format!("s.row * a.{name}_batch"),
            Axis::Position => format!("token * a.{name}_position"),
            Axis::Head => format!("{head} * a.{name}_head"),
        };
        let index: Vec<String> = axes.iter().map(term).collect();
        let index = if index.is_empty() { "0".to_owned() } else { index.join(" + ") };
        Ok(format!("a.{name}[{index}]"))
    }

    /// The statements that compute fields of a domain's struct, `to` being its variable.
    fn struct_lines(
        &mut self,
        e: &Expressions<'_>,
        domain: Domain,
        exports: &BTreeSet<ValueId>,
        to: &str,
    ) -> Result<(Vec<Field>, Vec<String>, Body), Error> {
        let roots: Vec<ValueId> = exports.iter().copied().collect();
        let body = e.body(&roots, domain, false);
        let in_struct = |v: ValueId| {
            let coordinate = &e.program.node(v).op;
            use Coord::{KeyPos, QueryHead, QueryPos};
            matches!(coordinate, Op::Coord(QueryPos | QueryHead | KeyPos))
        };
        let mut lines = Vec::new();
        for leaf in &body.leaves {
            if let Some(load) = self.load(e, *leaf)? {
                lines.push(format!("const {} {} = {load};", e.c_type(*leaf), e.name(*leaf)));
            }
        }
        lines.extend(body.lines.iter().cloned());
        let mut fields = Vec::new();
        for (v, result) in roots.iter().zip(&body.results).filter(|(v, _)| !in_struct(**v)) {
            fields.push(Field { ty: e.c_type(*v).to_owned(), name: e.name(*v).to_owned() });
            lines.push(format!("{to}.{} = {result};", e.name(*v)));
        }
        Ok((fields, lines, body))
    }

    /// Fills the structs with what functions of pairs, and late functions, read from them.
    pub(crate) fn structs(
        &mut self,
        e: &Expressions<'_>,
        used: &BTreeSet<ValueId>,
    ) -> Result<(), Error> {
        let of = |domain: Domain| -> BTreeSet<ValueId> {
            used.iter().copied().filter(|v| e.at(*v).domain == domain).collect()
        };
        let (fields, lines, rows) = self.struct_lines(e, Domain::Row, &of(Domain::Row), "r")?;
        if self.values.uses_gate {
            self.tensor("tau", Scalar::F32, false, &[]);
            self.values.row_fields.push(Field { ty: "float".to_owned(), name: "tau".to_owned() });
            let load = "r.tau = a.tau[(s.row * a.hkv + tile.g) * a.n + token];";
            self.values.row_lines.push(load.to_owned());
        }
        self.values.row_fields.extend(fields);
        self.values.row_lines.extend(lines);
        let (fields, lines, columns) =
            self.struct_lines(e, Domain::Column, &of(Domain::Column), "c")?;
        self.values.column_fields = fields;
        self.values.column_lines = lines;
        let mut uniform = of(Domain::Uniform);
        uniform.extend(rows.fields);
        uniform.extend(columns.fields);
        let (fields, lines, _) = self.struct_lines(e, Domain::Uniform, &uniform, "x")?;
        self.values.uniform_fields = fields;
        self.values.uniform_lines = lines;
        Ok(())
    }

    /// Whether the module's sweeps decide predicates for whole tiles.
    pub(crate) fn decides_tiles(&self) -> bool {
        let family = match self.module {
            Module::Plan => return false,
            Module::Forward => self.schedule.forward.family,
            Module::Backward => self.schedule.backward.family,
        };
        family == Family::Sm90
    }

    /// The plan, its header complete.
    pub(crate) fn finish(mut self) -> KernelPlan {
        let instance = self.problem.instance;
        let kernel = instance.program.name.clone();
        let v = &mut self.values;
        v.title = format!(
            "{kernel}, {}: {}, head dimension {}, k {}, window {}, groups of {} query heads",
            self.module.name(),
            instance.elem,
            instance.d,
            instance.k,
            instance.w,
            self.problem.group,
        );
        v.target_name = self.target.name();
        let family = match self.module {
            Module::Plan => Family::Sm80,
            Module::Forward => self.schedule.forward.family,
            Module::Backward => self.schedule.backward.family,
        };
        v.family = family.name().to_owned();
        v.schedule_line = match self.module {
            Module::Plan => format!("chunks of {} queries", self.schedule.chunk),
            Module::Forward => self.schedule.forward.to_string(),
            Module::Backward => self.schedule.backward.to_string(),
        };
        v.input_hash = input_hash(self.module, self.problem, self.schedule, self.target);
        KernelPlan {
            module: self.module,
            kernel,
            target: *self.target,
            interface: self.interface,
            elem: instance.elem,
            family,
            values: self.values,
        }
    }
}

/// What the generated code depends on, hashed: the programs without names, the specialisation, the
/// schedule and the target.
fn input_hash(
    module: Module,
    problem: &Problem<'_>,
    schedule: &Schedule,
    target: &Target,
) -> String {
    let mut hash = blake3::Hasher::new();
    hash.update(problem.instance.program.canonical().to_json().as_bytes());
    if module == Module::Backward {
        hash.update(problem.backward.canonical().to_json().as_bytes());
    }
    let mut given: Vec<String> =
        problem.given.iter().map(|g| format!("{}:{}", g.name, g.per_head)).collect();
    given.sort();
    let version = env!("CARGO_PKG_VERSION");
    let (module, group) = (module.name(), problem.group);
    let rest = format!("{version} {module} {group} {given:?} {schedule:?} {target}");
    hash.update(rest.as_bytes());
    hash.finalize().to_hex()[..16].to_owned()
}

/// The buffer of a product of two query vectors.
pub(crate) fn row_dot_buffer(e: &Expressions<'_>, v: ValueId) -> String {
    format!("row_dot_{}", e.name(v))
}

/// The field of a tensor: extra inputs are set apart, whatever they are called.
pub(crate) fn tensor_field(name: &str) -> String {
    match name {
        "q" | "k" | "v" | "u" | "o" | "lse" | "d_o" | "tau" | "expiry" => name.to_owned(),
        _ if name.starts_with("d_") => ascii(name),
        _ => format!("input_{}", ascii(name)),
    }
}

/// Letters that C does not take in an identifier, by their numbers.
fn ascii(name: &str) -> String {
    let letter = |c: char| match c.is_ascii_alphanumeric() || c == '_' {
        true => c.to_string(),
        false => format!("_{:x}", u32::from(c)),
    };
    name.chars().map(letter).collect()
}

fn axis_name(axis: Axis) -> &'static str {
    match axis {
        Axis::Batch => "batch",
        Axis::Position => "position",
        Axis::Head => "head",
    }
}

fn c_type(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::Elem => "elem",
        Scalar::F32 => "float",
        Scalar::F64 => "double",
        Scalar::I32 => "int",
        Scalar::U64 => "unsigned long long",
    }
}

/// What depends on the element type alone.
fn element(elem: Elem) -> Values {
    let [include_header, elem_type, mma_type, to_float, to_elem, divide] = match elem {
        Elem::Bf16 => [
            "cuda_bf16.h",
            "__nv_bfloat16",
            "bf16",
            "__bfloat162float",
            "__float2bfloat16_rn",
            "__fdividef(a, b)",
        ],
        Elem::F16 => {
            ["cuda_fp16.h", "__half", "f16", "__half2float", "__float2half_rn", "__fdividef(a, b)"]
        }
        Elem::F32 => ["", "float", "", "", "", "a / b"],
    }
    .map(str::to_owned);
    Values { include_header, elem_type, mma_type, to_float, to_elem, divide, ..Values::default() }
}
