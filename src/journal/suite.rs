//! journal/suite
