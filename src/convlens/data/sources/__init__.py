"""What people have, as samples: one file a kind."""
