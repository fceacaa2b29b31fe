//! A bounded byte pipe in memory.
