//! ledger/suite
