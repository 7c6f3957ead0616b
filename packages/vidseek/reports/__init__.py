"""What people are shown of an archive: report, plan, doctor, drift, the demo's result."""
