"""Run folders: settings, journals, comparisons."""
