"""What happens beside the steps: one small Composer callback a file."""
