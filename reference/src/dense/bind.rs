//! Inputs from arrays, outputs to arrays.

use super::geometry::At;
use super::{Evaluation, Value};
use crate::{Array, Error};
use sparsek_dsl::ir::{Class, Input, InputId, Kind, Output, Role, Type};

/// How a tensor's entries lie.
#[derive(Clone, Copy)]
enum Layout {
    /// \[1\]
    One,
    /// \[Hq\]
    Heads,
    /// \[B, N\]
    Tokens,
    /// \[B, N, H\], H of queries or keys.
    TokensByHead,
    /// \[B, H, N\]
    HeadByTokens,
}

impl Evaluation<'_> {
    /// Heads of a class: query heads, or key-value heads for keys.
    fn heads(&self, class: Class) -> usize {
        if class == Class::PerKey { self.geometry.hkv } else { self.geometry.hq }
    }

    /// Possible layouts of an input, the usual one first.
    fn layouts(role: Role, class: Class) -> &'static [Layout] {
        match (role, class) {
            (Role::Query | Role::Key | Role::Value | Role::Output | Role::OutputGrad, _) => {
                &[Layout::TokensByHead]
            }
            (Role::Score | Role::Lse, _) => &[Layout::HeadByTokens],
            (Role::Extra, Class::Scalar | Class::PerBatch) => &[Layout::One],
            (Role::Extra, Class::PerHead) => &[Layout::Heads],
            (Role::Extra, Class::PerQuery | Class::PerKey | Class::Pair) => {
                &[Layout::TokensByHead, Layout::Tokens]
            }
        }
    }

    fn shape(&self, layout: Layout, ty: Type) -> Vec<usize> {
        let g = &self.geometry;
        let heads = self.heads(ty.class);
        let mut shape = match layout {
            Layout::One => vec![1],
            Layout::Heads => vec![g.hq],
            Layout::Tokens => vec![g.batch, g.n],
            Layout::TokensByHead => vec![g.batch, g.n, heads],
            Layout::HeadByTokens => vec![g.batch, heads, g.n],
        };
        if ty.kind == Kind::Vector {
            shape.push(g.d);
        }
        shape
    }

    /// Entry of an index in an array of that layout.
    fn place(&self, layout: Layout, class: Class, at: At) -> usize {
        let g = &self.geometry;
        let (head, position) = if class == Class::PerKey { (at.g, at.j) } else { (at.h, at.i) };
        let row = g.sequences[at.s].place.row;
        match layout {
            Layout::One => 0,
            Layout::Heads => at.h,
            Layout::Tokens => g.token(at.s, position),
            Layout::TokensByHead => g.token(at.s, position) * self.heads(class) + head,
            Layout::HeadByTokens => {
                (row * self.heads(class) + head) * g.n + g.token(at.s, position) - row * g.n
            }
        }
    }

    /// The layout that an input's tensor has.
    fn layout_of(&self, input: &Input, array: &Array) -> Result<Layout, Error> {
        let layouts = Self::layouts(input.role, input.ty.class);
        let fits = |l: &&Layout| self.shape(**l, input.ty) == array.shape();
        layouts.iter().find(fits).copied().ok_or_else(|| Error::Shape {
            name: input.name.clone(),
            found: array.shape().to_vec(),
            wanted: self.wanted(input),
        })
    }

    fn wanted(&self, input: &Input) -> String {
        let shapes = Self::layouts(input.role, input.ty.class).iter();
        let shapes: Vec<String> =
            shapes.map(|l| format!("{:?}", self.shape(*l, input.ty))).collect();
        shapes.join(" or ")
    }

    /// An input's tensor, or its default everywhere.
    pub(super) fn input(&self, id: InputId) -> Result<Value, Error> {
        let input = self.program.input(id);
        let ty = input.ty;
        let Some(array) = self.inputs.get(&input.name) else {
            let Some(default) = input.default else {
                let (name, wanted) = (input.name.clone(), self.wanted(input));
                return Err(Error::Missing { name, wanted });
            };
            let default = self.constant_value(default)?;
            return Ok(self.map(ty, |_| default));
        };
        let layout = self.layout_of(input, array)?;
        let width = if ty.kind == Kind::Vector { self.geometry.d } else { 1 };
        let round = match ty.kind {
            Kind::Vector => self.options.arithmetic.stored(),
            Kind::F32 => self.options.arithmetic.result(false),
            Kind::I32 | Kind::Bool => |x| x,
        };
        let mut data = vec![0.0; self.geometry.size(ty.class) * width];
        self.geometry.each(ty.class, |at| {
            let to = self.geometry.offset(ty.class, at) * width;
            let from = self.place(layout, ty.class, at) * width;
            for (to, from) in data[to..to + width].iter_mut().zip(&array.data()[from..]) {
                *to = round(*from);
            }
        });
        Ok(Value { ty, data })
    }

    /// An output as a tensor: like its input's for a gradient, so that the gradient of a \[B, N\] input
    /// is summed over the heads that read it.
    pub(super) fn output(&self, output: &Output) -> Result<Array, Error> {
        let value = self.value(output.value);
        let layout = match output.name.strip_prefix("d_").and_then(|n| self.program.input_named(n))
        {
            Some(id) => {
                let input = self.program.input(id);
                match self.inputs.get(&input.name) {
                    Some(array) => self.layout_of(input, array)?,
                    None => Self::layouts(input.role, input.ty.class)[0],
                }
            }
            None if output.name == "lse" => Layout::HeadByTokens,
            None => Layout::TokensByHead,
        };
        let ty = output.ty;
        let mut array = Array::zeros(&self.shape(layout, ty));
        let to = array.data_mut();
        let round = match ty.kind {
            Kind::Vector => self.options.arithmetic.stored(),
            Kind::F32 | Kind::I32 | Kind::Bool => self.options.arithmetic.result(false),
        };
        let width = if ty.kind == Kind::Vector { self.geometry.d } else { 1 };
        self.geometry.each(ty.class, |at| {
            let place = self.place(layout, ty.class, at) * width;
            for (e, to) in to[place..place + width].iter_mut().enumerate() {
                // A number stands for a vector of that number: the gradient 0 of an unused input.
                *to += match value.ty.kind {
                    Kind::Vector => self.vector(value, at)[e],
                    Kind::F32 | Kind::I32 | Kind::Bool => self.get(value, at),
                };
            }
        });
        to.iter_mut().for_each(|x| *x = round(*x));
        Ok(array)
    }
}
