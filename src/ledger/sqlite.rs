//! ledger/sqlite
pub struct SqliteLedger;
