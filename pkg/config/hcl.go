package config

import (
	"errors"
	"fmt"

	"github.com/hashicorp/hcl/hcl/ast"
	"github.com/hashicorp/hcl/hcl/parser"
	"github.com/hashicorp/hcl/hcl/token"
)

// decodeHCL reads HCL 1, the language of Consul's and Nomad's own files. It walks the syntax tree itself, because hcl.Decode
// turns every block into a list of blocks and lets a key that is set twice pass.
func decodeHCL(data []byte, into map[string]any) error {
	file, err := parser.Parse(data)
	if err != nil {
		return hclError(err)
	}
	list, ok := file.Node.(*ast.ObjectList)
	if !ok {
		return errors.New("want keys and values")
	}
	return hclObject(list, into, 0)
}

// hclError keeps the position only: the parser's message quotes the text it stumbled over, which may be a token.
func hclError(err error) error {
	var at *parser.PosError
	if errors.As(err, &at) {
		return fmt.Errorf("line %d, column %d: syntax error (is text in double quotes?)", at.Pos.Line, at.Pos.Column)
	}
	return errors.New("syntax error")
}

func hclObject(list *ast.ObjectList, into map[string]any, depth int) error {
	for _, item := range list.Items {
		target := into
		for i, key := range item.Keys {
			name, _ := key.Token.Value().(string)
			if i < len(item.Keys)-1 { // consul "tls" { ... }
				next, err := hclSection(target, name, key.Token.Pos)
				if err != nil {
					return err
				}
				target = next
				continue
			}
			if err := hclItem(target, name, item, depth+len(item.Keys)); err != nil {
				return err
			}
		}
	}
	return nil
}

func hclItem(target map[string]any, name string, item *ast.ObjectItem, depth int) error {
	if object, ok := item.Val.(*ast.ObjectType); ok {
		section, err := hclSection(target, name, item.Pos())
		if err != nil {
			return err
		}
		if depth > maxDepth {
			return fmt.Errorf("line %d: nested too deeply", item.Pos().Line)
		}
		return hclObject(object.List, section, depth)
	}
	if _, twice := target[name]; twice {
		return fmt.Errorf("line %d: %q is set twice", item.Pos().Line, name)
	}
	value, err := hclValue(item.Val, depth)
	target[name] = value
	return err
}

// hclSection finds or makes a block; a block may come in several pieces.
func hclSection(target map[string]any, name string, at token.Pos) (map[string]any, error) {
	switch old := target[name].(type) {
	case nil:
		section := map[string]any{}
		target[name] = section
		return section, nil
	case map[string]any:
		return old, nil
	default:
		return nil, fmt.Errorf("line %d: %q is set twice", at.Line, name)
	}
}

func hclValue(node ast.Node, depth int) (any, error) {
	switch n := node.(type) {
	case *ast.LiteralType:
		return n.Token.Value(), nil
	case *ast.ListType:
		if depth > maxDepth {
			return nil, fmt.Errorf("line %d: nested too deeply", n.Lbrack.Line)
		}
		list := []any{}
		for _, item := range n.List {
			value, err := hclValue(item, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		return list, nil
	case *ast.ObjectType:
		object := map[string]any{}
		if depth > maxDepth {
			return nil, fmt.Errorf("line %d: nested too deeply", n.Lbrace.Line)
		}
		return object, hclObject(n.List, object, depth+1)
	}
	return nil, errors.New("unknown syntax")
}
