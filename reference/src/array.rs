//! Dense arrays of f64.

use crate::Error;
use std::collections::BTreeMap;

/// Named arrays: inputs, outputs, gradients.
pub type Arrays = BTreeMap<String, Array>;

/// A contiguous row-major array. Integers are held as f64, exactly.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    data: Vec<f64>,
}

impl Array {
    /// An array from its shape and elements; an error when their numbers differ.
    pub fn new(shape: &[usize], data: Vec<f64>) -> Result<Array, Error> {
        // A product beyond usize cannot be the length of anything.
        let size = shape.iter().try_fold(1usize, |size, d| size.checked_mul(*d));
        if size == Some(data.len()) {
            Ok(Array { shape: shape.to_vec(), data })
        } else {
            Err(Error::Length { shape: shape.to_vec(), found: data.len() })
        }
    }

    /// An array of zeros.
    pub fn zeros(shape: &[usize]) -> Array {
        Array::filled(shape, 0.0)
    }

    /// An array with every element `x`.
    pub fn filled(shape: &[usize], x: f64) -> Array {
        Array { shape: shape.to_vec(), data: vec![x; shape.iter().product()] }
    }

    /// An array of f32 elements.
    pub fn from_f32(shape: &[usize], data: &[f32]) -> Result<Array, Error> {
        Array::new(shape, data.iter().map(|x| f64::from(*x)).collect())
    }

    /// An array of integer elements.
    pub fn from_i32(shape: &[usize], data: &[i32]) -> Result<Array, Error> {
        Array::new(shape, data.iter().map(|x| f64::from(*x)).collect())
    }

    /// Its dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its elements.
    pub fn data(&self) -> &[f64] {
        &self.data
    }

    /// Its elements, to change them.
    pub fn data_mut(&mut self) -> &mut [f64] {
        &mut self.data
    }

    /// Its elements rounded to f32.
    pub fn to_f32(&self) -> Vec<f32> {
        self.data.iter().map(|x| *x as f32).collect()
    }

    /// Its elements as integers; fractions are cut off.
    pub fn to_i32(&self) -> Vec<i32> {
        self.data.iter().map(|x| *x as i32).collect()
    }
}
