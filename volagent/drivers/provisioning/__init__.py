"""Provisioners: who makes, grows, copies and takes back volumes in their backends."""
